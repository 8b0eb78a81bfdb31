/** The fake's responses have the server's shapes, as the recorded exchanges show them. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FakeTransport } from "../src/testing/fake_transport";
import { eventsOf } from "../src/events";

const recorded = (name: string) =>
  JSON.parse(readFileSync(join(import.meta.dir, "../../exchanges", `${name}.json`), "utf8")) as {
    request: { method: string; path: string; query: Record<string, string>; body?: object | null };
    response: { status: number; body?: Record<string, unknown>; text?: string };
  };

/** Maps recorded ids to those that responses have instead. */
class Conversation {
  readonly ids: Record<string, string> = {};
  readonly transport = new FakeTransport();

  constructor() {
    this.transport.images.add("small", 7);
    this.transport.scripts.add(
      () => true,
      ({ kind }) => ({ stdout: "1\n", running: kind === "process" }),
    );
  }

  async answerTo(name: string): Promise<{ status: number; text: string }> {
    const { method, path, query, body } = JSON.parse(
      JSON.stringify(recorded(name).request).replace(
        /(ses|proc|ctx|snp|key|whk)_abc123def456(?:ghi789)?/g,
        (_, kind: string) => this.ids[kind]!,
      ),
    );
    const url = `http://fake.invalid${path}?${new URLSearchParams(query)}`;
    const headers: Record<string, string> = body === null ? {} : { "Content-Type": "application/json" };
    const text = body === null ? null : JSON.stringify(body);
    const answer = await this.transport.send({
      method,
      url,
      headers,
      body: text,
      signal: new AbortController().signal,
    });
    return { status: answer.status, text: await answer.text() };
  }

  /** Sends the recorded request, keeps the ids of the response, and expects the recorded fields. */
  async says(name: string): Promise<void> {
    const { status, text } = await this.answerTo(name);
    const { response } = recorded(name);
    if (response.text !== undefined) return expect(await namesIn(text)).toEqual(await namesIn(response.text));
    const told = JSON.parse(text);
    for (const [kind, field] of [
      ["ses", "sessionId"],
      ["proc", "processId"],
      ["ctx", "contextId"],
      ["snp", "snapshotId"],
      ["key", "keyId"],
      ["whk", "webhookId"],
    ] as const)
      if ((told[field] ?? null) !== null) this.ids[kind] = told[field];
    expect(status).toBe(response.status);
    expect(shapeOf(told)).toEqual(shapeOf(response.body));
  }
}

/** Returns the names of the events, and the fields of the last. */
async function namesIn(text: string): Promise<unknown> {
  async function* parts() {
    yield new TextEncoder().encode(text);
  }
  const told = await Array.fromAsync(eventsOf(parts()));
  return [[...new Set(told.map(({ name }) => name))].sort(), shapeOf(JSON.parse(told.at(-1)!.data))];
}

/** Returns the names and types of values; for a list, those of its first entry. Leaves out names that users choose. */
function shapeOf(value: unknown, name = ""): unknown {
  if (["metadata", "details", "ports", "filesWritten", "envNames", "allow", "deny"].includes(name))
    return Array.isArray(value) ? [] : {};
  if (
    value === null ||
    [
      ...["exitCode", "reason", "endedAt", "name", "onWake", "expiresAt", "checkpointedAt"],
      ...["disabledReason", "lastAttemptAt", "nextAttemptAt", "status", "failure"],
    ].includes(name)
  )
    return "may be null";
  if (name === "checkpointEvery") return "seconds or never";
  if (Array.isArray(value)) return value.slice(0, 1).map((entry) => shapeOf(entry));
  if (typeof value !== "object") return typeof value;
  return Object.fromEntries(
    Object.entries(value)
      .sort()
      .map(([key, inner]) => [key, shapeOf(inner, key)]),
  );
}

test("the fake returns the same fields as a server", async () => {
  const conversation = new Conversation();
  const names = [
    ["create-session-all-fields", "get-session-all-fields", "list-sessions", "patch-session", "create-preview-token"],
    ["get-session-metrics", "list-latest-metrics"],
    ["list-sessions-by-name", "get-session-by-name", "get-or-create-session", "name-taken"],
    ["get-account", "create-key-all-fields", "list-keys", "delete-key", "key-not-found", "create-key"],
    ["create-key-of-the-operator", "create-webhook-all-fields", "list-webhooks", "get-webhook"],
    ["rotate-webhook-secret", "test-webhook", "list-deliveries", "delivery-not-found", "patch-webhook"],
    ["webhook-is-off", "list-events", "list-events-from-cursor", "delete-webhook", "webhook-not-found"],
    ["create-webhook"],
    ["image-not-found", "list-images", "delete-image-of-the-operator"],
    ["revoke-preview-tokens", "execute-code", "execute-command", "stream-command", "write-file", "append-to-file"],
    ["write-file-base64", "read-file", "read-file-base64", "stat-file", "list-files", "make-directory", "search-names"],
    ["move-file", "make-directory-again", "directory-not-empty", "delete-directory", "file-not-found"],
    ["create-context", "evaluate-nothing", "list-contexts", "delete-context", "context-not-found"],
    ["start-process", "get-process", "list-processes", "process-input", "process-input-base64", "close-process-input"],
    ["invalid-state", "process-logs", "pause-process", "signal-process", "get-process-exited"],
    ["signal-process-ended", "signal-process-unknown", "sleep-session", "wake-session"],
    ["create-snapshot", "create-snapshot-all-fields", "get-snapshot", "list-snapshots", "list-snapshots-filtered"],
    ["fork-session", "fork-session-all-fields", "fork-session-partly", "restore-session", "create-image"],
    ["recover-session-not-lost"],
    ["create-image-of-snapshot", "delete-image", "sleep-session-deeply", "wake-session-from-deep-sleep"],
    ["create-session-from-snapshot", "get-session-from-snapshot", "delete-snapshot", "snapshot-not-found"],
    ["create-session-with-services", "list-services", "stop-service", "start-service", "restart-service"],
    ["service-not-found", "patch-services", "patch-services-to-default"],
    ["invalid-request", "delete-session", "session-not-found"],
  ].flat();
  for (const name of names) await conversation.says(name);
});

test("the fake's usage has the server's fields", async () => {
  const conversation = new Conversation();
  const names = ["create-session", "execute-code", "sleep-session-deeply", "list-usage-windows", "get-usage"];
  names.push("list-usage-windows-from-cursor", "get-usage-of-session", "get-usage-by-session", "list-hosts");
  for (const name of names) await conversation.says(name);
});
