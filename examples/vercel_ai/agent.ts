/** `bun agent.ts "Write FizzBuzz, run it, and serve the output as a page."` */

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Buntime } from "@buntime/sdk";
import { generateText, isStepCount } from "ai";
import { sessionTools } from "./tools.ts";

const provider = createOpenAICompatible({
  name: "openai",
  baseURL: process.env.OPENAI_BASE_URL ?? "https://api.openai.com/v1",
  apiKey: process.env.OPENAI_API_KEY,
});

await using session = await new Buntime().sessions.create({ ttl: 3600 });
const { text } = await generateText({
  model: provider(process.env.OPENAI_MODEL ?? "gpt-5.5"),
  system: "You have a sandbox with Bun. Use the tools, and check their results before you continue.",
  prompt: process.argv[2] ?? "Print the first ten primes.",
  tools: sessionTools(session),
  stopWhen: isStepCount(20),
});
console.log(text);
