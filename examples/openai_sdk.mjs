// Ask with OpenAI's SDK for Node.
import OpenAI from "openai";

const baseURL = process.env.SOPHIA_BASE_URL ?? "http://localhost:8080/v1";
const client = new OpenAI({ baseURL, apiKey: process.env.SOPHIA_API_KEY });
const messages = [{ role: "user", content: "What does a router do?" }];
const answer = await client.chat.completions.create({ model: "sophia/auto", messages });
console.log(answer.choices[0].message.content);
console.log(answer.model, answer.sophia.reason, `$${answer.usage.cost.toFixed(6)}`);
