/** A user's program, checked against the published types. */

import {
  Buntime,
  BuntimeError,
  ExecutionFailed,
  SessionNotFound,
  type ExecuteRequest,
  type ExecuteResponse,
  type ExecutionResult,
  type File,
  type FileWritten,
  type RunEvent,
  type Session,
} from "@buntime/sdk";
import { FakeBuntime, type FakeRun } from "@buntime/sdk/testing";

const client: Buntime = new Buntime({
  apiKey: "btk_key",
  baseUrl: "http://localhost:8000",
  timeout: 30_000,
  maxRetries: 3,
  retryDelay: 1000,
  onRetry: (error: BuntimeError, attempt: number, delay: number) => console.log(error.code, attempt, delay),
});

export async function documented(): Promise<void> {
  const session: Session = await client.sessions.create({ ttl: 3600, metadata: { user: "u1" } });
  const texts: (string | null)[] = [session.id, session.expiresAt, session.previewUrl, session.createdAt];
  const memory: number = session.resourceLimits.memory;
  const files: File[] = [{ path: "a.txt", content: "a" }];
  const request: ExecuteRequest = { sessionId: session.id, code: "1", files, env: { A: "b" }, timeout: 5 };
  const { stdout, stderr, exitCode, executionTime, memoryUsed }: ExecuteResponse = await client.execute(request);
  await client.files.write({ sessionId: session.id, path: "b.txt", content: stdout + stderr });
  const { files: entries } = await client.files.list({ sessionId: session.id, path: "." });
  const { content } = await client.files.read({ sessionId: session.id, path: entries[0]?.path ?? "b.txt" });
  await client.files.delete({ sessionId: session.id, path: content });
  console.log(texts, memory, exitCode + executionTime + memoryUsed);
  try {
    await client.sessions.get(session.id);
    await client.sessions.delete(session.id);
  } catch (error) {
    if (!(error instanceof BuntimeError)) throw error;
    const code: string = error.code;
    const status: number | null = error.status;
    const wait: number | null = error.retryAfter;
    console.log(code, status, error.details, wait, error instanceof SessionNotFound);
  }
}

export async function beyond(events: RunEvent[]): Promise<string | null> {
  await using session = await client.sessions.create();
  for await (const event of session.stream("1")) {
    events.push(event);
    if (event.type === "stdout") console.log(event.data);
    if (event.type === "result") console.log(event.exitCode);
  }
  const process = await session.processes.start("bun server.ts", { waitFor: { port: 8080 } });
  for await (const entry of process.follow()) if (entry.type === "exit") console.log(entry.exitCode);
  const { result } = await (await session.contexts.create()).execute("1 + 1");
  return result?.text ?? null;
}

export async function results(session: Session): Promise<number> {
  const heard: string[] = [];
  const result: ExecutionResult = await session.executeCommand("ls", { onStdout: (data) => void heard.push(data) });
  const { ok, stdout } = result.check();
  const written: FileWritten[] = await session.files.write({ "a.txt": "a", "b.bin": new Uint8Array(1) });
  const one: FileWritten = await session.files.write("a.txt", stdout, { append: true });
  try {
    const response: Response = await session.fetch("/api", {
      port: 3000,
      method: "POST",
      body: JSON.stringify({ ok }),
    });
    return response.status + written.length + one.size;
  } catch (error) {
    if (error instanceof ExecutionFailed) return error.result.exitCode;
    throw error;
  }
}

export const fake: Buntime = new FakeBuntime().onExecute(/x/, (run: FakeRun) => ({ stdout: run.code ?? "" }));

// @ts-expect-error: a mistyped name is found
client.sessions.create({ tll: 3600 });
