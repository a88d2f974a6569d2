// Drives OpenRouter's own package, `@openrouter/sdk`.
import { OpenRouter } from "@openrouter/sdk";

import { Pieces, answerLines, apiKey, baseUrl, call, messages } from "./talk.mjs";

const actions = { chat, embed, list };

await answerLines(async (ask, seen) => {
  const client = new OpenRouter({
    apiKey: apiKey(ask),
    serverURL: baseUrl,
    // Left alone, the package repeats every 5xx for an hour.
    retryConfig: { strategy: "none" },
    timeoutMs: 20_000,
  });
  await actions[ask.do](client, ask, seen);
});

function fields(ask) {
  const asked = { model: ask.model, messages: messages(ask), ...ask.extra };
  if (ask.settings) asked.maxTokens = ask.settings.max_tokens;
  if (ask.tools) asked.tools = ask.tools;
  if (ask.schema) {
    const jsonSchema = { name: "answer", strict: true, schema: ask.schema };
    asked.responseFormat = { type: "json_schema", jsonSchema };
  }
  return asked;
}

async function chat(client, ask, seen) {
  if (ask.stream) return stream(client, ask, seen);
  const answer = await client.chat.send({ chatRequest: fields(ask) });
  const [choice] = answer.choices;
  noteUsage(answer, seen);
  seen.text = choice.message.content;
  seen.reasoning = choice.message.reasoning;
  seen.finish = choice.finishReason;
  seen.calls = (choice.message.toolCalls ?? []).map((made) =>
    call(made.function.name, made.function.arguments),
  );
}

async function stream(client, ask, seen) {
  const pieces = new Pieces();
  for await (const chunk of await client.chat.send({ chatRequest: { ...fields(ask), stream: true } })) {
    noteUsage(chunk, seen);
    if (chunk.error) seen.chunk_error = { code: chunk.error.code, message: chunk.error.message };
    for (const { delta, finishReason } of chunk.choices) {
      seen.text += delta.content ?? "";
      seen.reasoning += delta.reasoning ?? "";
      seen.finish = finishReason ?? seen.finish;
      for (const part of delta.toolCalls ?? []) {
        pieces.add(part.index, part.function.name, part.function.arguments);
      }
    }
  }
  seen.calls = pieces.calls();
}

async function embed(client, ask, seen) {
  const answer = await client.embeddings.generate({
    requestBody: { model: ask.model, input: ask.inputs },
  });
  noteUsage(answer, seen);
  seen.sizes = answer.data.map((row) => row.embedding.length);
  seen.indexes = answer.data.map((row) => row.index);
}

async function list(client, ask, seen) {
  seen.ids = [];
  for await (const page of await client.models.list()) {
    seen.ids.push(...page.result.data.map((model) => model.id));
  }
}

function noteUsage(answer, seen) {
  seen.model = answer.model;
  if (!answer.usage) return;
  const { promptTokens, completionTokens = 0, totalTokens, cost } = answer.usage;
  seen.usage = [promptTokens, completionTokens, totalTokens];
  seen.cost = cost;
}
