// The line protocol of python/talk.py for the Node programs.
import { createInterface } from "node:readline";

export async function answerLines(act) {
  for await (const line of createInterface({ input: process.stdin })) {
    const seen = { text: "", reasoning: "" };
    try {
      await act(JSON.parse(line), seen);
    } catch (error) {
      seen.error = describe(error);
    }
    console.log(JSON.stringify(seen));
  }
}

export function describe(error) {
  return {
    types: lineage(error),
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? error.error?.code ?? null,
    message: String(error.message ?? error),
  };
}

function lineage(error) {
  const names = [];
  for (let at = error; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    names.push(at.constructor.name);
  }
  return [...new Set(names)];
}

export const baseUrl = process.env.BASE_URL;
export const apiKey = (ask) => ask.key ?? process.env.API_KEY;

export function messages(ask) {
  return [{ role: "user", content: ask.prompt }];
}

export function call(name, text) {
  return { name, arguments: JSON.parse(text) };
}

// Joins the fragments of streamed tool calls by their index.
export class Pieces {
  #parts = new Map();

  add(index, name, text) {
    const part = this.#parts.get(index) ?? { name: "", text: "" };
    part.name += name ?? "";
    part.text += text ?? "";
    this.#parts.set(index, part);
  }

  calls() {
    return [...this.#parts].sort(([a], [b]) => a - b).map(([, part]) => call(part.name, part.text));
  }
}
