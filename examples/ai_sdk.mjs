// Ask with Vercel's AI SDK; the extractor adds Sophia's part of the answer to the metadata.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText } from "ai";

const baseURL = process.env.SOPHIA_BASE_URL ?? "http://localhost:8080/v1";
const apiKey = process.env.SOPHIA_API_KEY;
const metadataExtractor = { extractMetadata: async ({ parsedBody: { sophia } }) => ({ sophia }) };
const provider = createOpenAICompatible({ name: "sophia", baseURL, apiKey, metadataExtractor });
const answer = await generateText({ model: provider("sophia/auto"), prompt: "What does a router do?" });
const { model, reason, cost_usd: cost } = answer.providerMetadata.sophia;
console.log(answer.text);
console.log(model, reason, `$${cost.toFixed(6)}`);
