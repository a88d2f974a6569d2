// Drives `ai` with `@openrouter/ai-sdk-provider`.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

import { answerLines, apiKey, baseUrl, describe } from "./talk.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const actions = { agent, chat };

await answerLines(async (ask, seen) => {
  const provider = createOpenRouter({ baseURL: baseUrl, apiKey: apiKey(ask), extraBody: ask.extra });
  await actions[ask.do](provider(ask.model), ask, seen);
});

function fields(model, ask) {
  const asked = { model, prompt: ask.prompt, maxRetries: 0 };
  // `maxOutputTokens` would be checked here already, and a wrong one never sent.
  if (ask.settings) asked.providerOptions = { openrouter: ask.settings };
  if (ask.tools) asked.tools = Object.fromEntries(ask.tools.map(declare));
  if (ask.schema) asked.output = Output.object({ name: "answer", schema: jsonSchema(ask.schema) });
  return asked;
}

function declare({ function: { name, description, parameters } }) {
  return [name, tool({ description, inputSchema: jsonSchema(parameters) })];
}

async function chat(model, ask, seen) {
  if (ask.stream) return stream(model, ask, seen);
  note(await generateText(fields(model, ask)), seen);
}

async function stream(model, ask, seen) {
  const answer = streamText({ ...fields(model, ask), onError: () => {} });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "error") seen.part_error = describe(part.error);
    if (part.type === "finish-step") {
      seen.finish = part.rawFinishReason;
      seen.model = part.response.modelId;
    }
  }
  if (!seen.part_error) note(await settled(answer), seen);
}

// Lets the library call the tool and send its result back by itself.
async function agent(model, ask, seen) {
  const asked = fields(model, ask);
  seen.calls = [];
  asked.tools.weather.execute = (input) => {
    seen.calls.push({ name: "weather", arguments: input });
    return ask.result;
  };
  const answer = await generateText({ ...asked, stopWhen: stepCountIs(3) });
  seen.text = answer.text;
}

async function settled(answer) {
  const names = ["text", "rawFinishReason", "response", "usage", "providerMetadata", "toolCalls", "reasoningText"];
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await answer[name]])),
  );
}

function note(answer, seen) {
  const { inputTokens, outputTokens, totalTokens } = answer.usage;
  seen.text = answer.text;
  seen.finish = answer.rawFinishReason;
  seen.model = answer.response.modelId;
  seen.usage = [inputTokens, outputTokens, totalTokens];
  seen.reasoning = answer.reasoningText;
  seen.cost = answer.providerMetadata?.openrouter?.usage?.cost;
  seen.calls = answer.toolCalls.map((made) => ({ name: made.toolName, arguments: made.input }));
}
