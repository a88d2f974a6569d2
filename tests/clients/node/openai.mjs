// Drives the `openai` package.
import OpenAI from "openai";

import { Pieces, answerLines, apiKey, baseUrl, call, messages } from "./talk.mjs";

const actions = { chat, complete, embed, list, parse };

await answerLines(async (ask, seen) => {
  const client = new OpenAI({ baseURL: baseUrl, apiKey: apiKey(ask), maxRetries: 0, timeout: 20_000 });
  await actions[ask.do](client, ask, seen);
});

function fields(ask) {
  const asked = { model: ask.model, messages: messages(ask), ...ask.settings, ...ask.extra };
  if (ask.tools) asked.tools = ask.tools;
  if (ask.schema) {
    const schema = { name: "answer", strict: true, schema: ask.schema };
    asked.response_format = { type: "json_schema", json_schema: schema };
  }
  return asked;
}

async function chat(client, ask, seen) {
  if (ask.stream) return stream(client, ask, seen);
  noteAnswer(await client.chat.completions.create(fields(ask)), seen);
}

async function stream(client, ask, seen) {
  const pieces = new Pieces();
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create({ ...fields(ask), ...options })) {
    noteUsage(chunk, seen);
    for (const { delta, finish_reason } of chunk.choices) {
      seen.text += delta.content ?? "";
      seen.reasoning += delta.reasoning ?? "";
      seen.finish = finish_reason ?? seen.finish;
      for (const part of delta.tool_calls ?? []) {
        pieces.add(part.index, part.function.name, part.function.arguments);
      }
    }
  }
  seen.calls = pieces.calls();
}

// The helper that accumulates a stream; it is stricter than plain iteration.
async function parse(client, ask, seen) {
  noteAnswer(await client.chat.completions.stream(fields(ask)).finalChatCompletion(), seen);
}

async function complete(client, ask, seen) {
  const asked = { model: ask.model, prompt: ask.prompt };
  if (!ask.stream) {
    const answer = await client.completions.create(asked);
    noteUsage(answer, seen);
    seen.text = answer.choices[0].text;
    seen.finish = answer.choices[0].finish_reason;
    return;
  }
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
    noteUsage(chunk, seen);
    for (const choice of chunk.choices) {
      seen.text += choice.text;
      seen.finish = choice.finish_reason ?? seen.finish;
    }
  }
}

async function embed(client, ask, seen) {
  const answer = await client.embeddings.create({ model: ask.model, input: ask.inputs });
  noteUsage(answer, seen);
  seen.sizes = answer.data.map((row) => row.embedding.length);
  seen.indexes = answer.data.map((row) => row.index);
}

async function list(client, ask, seen) {
  seen.ids = [];
  for await (const model of client.models.list()) seen.ids.push(model.id);
}

function noteAnswer(answer, seen) {
  const [choice] = answer.choices;
  noteUsage(answer, seen);
  seen.text = choice.message.content;
  seen.reasoning = choice.message.reasoning;
  seen.finish = choice.finish_reason;
  seen.calls = (choice.message.tool_calls ?? []).map((made) =>
    call(made.function.name, made.function.arguments),
  );
}

function noteUsage(answer, seen) {
  seen.model = answer.model;
  if (!answer.usage) return;
  const { prompt_tokens, completion_tokens = 0, total_tokens, cost } = answer.usage;
  seen.usage = [prompt_tokens, completion_tokens, total_tokens];
  seen.cost = cost;
}
