/** A session's operations as tools of the AI SDK. */

import { BuntimeError, type ExecuteResponse, type Session } from "@buntime/sdk";
import { tool, type ToolSet } from "ai";
import { z } from "zod";

const LONGEST = 10_000; // characters of output that the model reads

export function sessionTools(session: Session) {
  return {
    executeCode: tool({
      description: "Run TypeScript or JavaScript with Bun. Files are kept between runs, variables are not.",
      inputSchema: z.object({ code: z.string() }),
      execute: ({ code }) => told(async () => shown(await session.execute(code))),
    }),
    runCommand: tool({
      description: "Run a bash command in /workspace.",
      inputSchema: z.object({ command: z.string() }),
      execute: ({ command }) => told(async () => shown(await session.executeCommand(command))),
    }),
    writeFile: tool({
      description: "Write a text file. Paths are relative to /workspace.",
      inputSchema: z.object({ path: z.string(), content: z.string() }),
      execute: ({ path, content }) => told(async () => `${(await session.files.write(path, content)).size} bytes`),
    }),
    readFile: tool({
      description: "Read a text file.",
      inputSchema: z.object({ path: z.string() }),
      execute: ({ path }) => told(() => session.files.read(path)),
    }),
    preview: tool({
      description: "Start a command that serves HTTP on port 8080, and return its public URL.",
      inputSchema: z.object({ command: z.string() }),
      execute: ({ command }) =>
        told(async () => {
          const server = await session.processes.start({ command, waitFor: { port: 8080 } });
          return server.ready ? session.previewUrl : `Nothing listens on port 8080: the command is ${server.status}.`;
        }),
    }),
  } satisfies ToolSet;
}

function shown({ stdout, stderr, exitCode }: ExecuteResponse): string {
  return `exit code ${exitCode}\nstdout:\n${stdout.slice(0, LONGEST)}\nstderr:\n${stderr.slice(0, LONGEST)}`;
}

/** Returns errors to the model as text, since it can act on them. */
async function told(call: () => Promise<string>): Promise<string> {
  try {
    return await call();
  } catch (failure) {
    if (failure instanceof BuntimeError) return `${failure.code}: ${failure.message}`;
    throw failure;
  }
}
