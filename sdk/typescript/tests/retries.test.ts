import { expect, test } from "bun:test";
import {
  ConnectionFailed,
  RateLimitExceeded,
  RequestTimeout,
  SessionLimitExceeded,
  Unavailable,
  type BuntimeError,
} from "../src/index";
import { delayBefore } from "../src/retries";
import { CREATED, ENDED, FastTimers, StandIn, failureOf, json, lost, refusal } from "./stand_in";

const RULES = { maxRetries: 2, retryDelay: 100 };
const busy = (retryAfter: number | null) => new Unavailable("busy", { code: "unavailable", status: 503, retryAfter });

test("delays double, half of each is random, and Retry-After wins", () => {
  expect(delayBefore(busy(null), 1, true, RULES, 1)).toBe(100);
  expect(delayBefore(busy(null), 2, true, RULES, 1)).toBe(200);
  expect(delayBefore(busy(null), 2, true, RULES, 0)).toBe(100);
  expect(delayBefore(busy(3), 1, true, RULES, 1)).toBe(3000);
});

test("no retry follows the last one, or a Retry-After above a minute", () => {
  expect(delayBefore(busy(null), 3, true, RULES, 1)).toBeNull();
  expect(delayBefore(busy(61), 1, true, RULES, 1)).toBeNull();
});

test("a call that is not repeatable is retried only if nothing was begun", () => {
  const limited = new RateLimitExceeded("slow down", { code: "rate_limit_exceeded", status: 429, retryAfter: 2 });
  expect(delayBefore(limited, 1, false, RULES, 1)).toBe(2000);
  expect(delayBefore(new ConnectionFailed("refused", { begun: false }), 1, false, RULES, 1)).toBe(100);
  const waking = { code: "unavailable", status: 503, retryAfter: 1, details: { waking: true } };
  expect(delayBefore(new Unavailable("waking", waking), 1, false, RULES, 1)).toBe(1000);
  for (const failure of [new ConnectionFailed("cut", { begun: true }), new RequestTimeout("late"), busy(1)]) {
    expect(delayBefore(failure, 1, false, RULES, 1)).toBeNull();
    expect(delayBefore(failure, 1, true, RULES, 1)).not.toBeNull();
  }
});

test("a call that waits for a restore is retried, and then tells how far it is", async () => {
  const details = { waking: true, reason: "restoring", restoredBytes: 25, totalBytes: 100 };
  const told = json({ error: { code: "unavailable", retryable: true, message: "m", details } }, 503, {
    "Retry-After": "1",
  });
  using timers = new FastTimers(100);
  using server = new StandIn(told, told);
  const delays: number[] = [];
  const client = server.client({ maxRetries: 1, onRetry: (_failure, _attempt, delay) => delays.push(delay) });
  expect(await failureOf(client.sessions.open("s").execute("1"))).toMatchObject({ details, retryAfter: 1 });
  expect(delays).toEqual([1000]);
  expect(timers.asked).toContain(1000);
});

test("files that are being fetched are asked for again", () => {
  const fetching = { code: "unavailable", status: 503, retryAfter: 2, details: { fetching: true } };
  expect(delayBefore(new Unavailable("fetching", fetching), 1, false, RULES, 1)).toBe(2000);
});

test("a full account is thrown at once", () => {
  const full = new SessionLimitExceeded("full", { code: "session_limit_exceeded", status: 429, retryAfter: 30 });
  expect(delayBefore(full, 1, true, RULES, 1)).toBeNull();
});

test("a create with a lost response is retried with the same key and creates one session", async () => {
  const made = new Map<string, object>();
  const create = (key: string) => made.set(key, made.get(key) ?? CREATED).get(key);
  using server = new StandIn(
    ({ headers }) => (create(headers.get("idempotency-key")!), lost()),
    ({ headers }) => Response.json(create(headers.get("idempotency-key")!)),
  );
  const told: [string, number, number][] = [];
  const onRetry = (error: BuntimeError, attempt: number, delay: number) => void told.push([error.code, attempt, delay]);
  const session = await server.client({ onRetry }).sessions.create();
  expect(session.id).toBe(CREATED.sessionId);
  expect(server.asked).toHaveLength(2);
  expect(made.size).toBe(1);
  expect([...made.keys()][0]).toMatch(/^[\x21-\x7e]{16,255}$/);
  expect(told.map(([code, attempt]) => [code, attempt])).toEqual([["connection_failed", 1]]);
});

test("a create with a lost response waits while the server works on it", async () => {
  const working = refusal(409, "idempotency_in_progress");
  using server = new StandIn(lost, working, working, working, working, working, () => Response.json(CREATED));
  expect((await server.client().sessions.create()).id).toBe(CREATED.sessionId);
  expect(new Set(server.asked.map(({ headers }) => headers.get("idempotency-key"))).size).toBe(1);
});

test("each create has its own key, and the caller's key wins", async () => {
  using server = new StandIn(json(CREATED));
  const { sessions } = server.client();
  await sessions.create();
  await sessions.create();
  await sessions.create({}, { idempotencyKey: "mine" });
  const keys = server.asked.map(({ headers }) => headers.get("idempotency-key"));
  expect(new Set(keys).size).toBe(3);
  expect(keys[2]).toBe("mine");
});

test("a run with a lost response is not retried", async () => {
  using server = new StandIn(lost);
  expect(await failureOf(server.client().execute({ sessionId: "s", code: "1" }))).toBeInstanceOf(ConnectionFailed);
  expect(server.asked).toHaveLength(1);
  expect(server.asked[0]!.headers.has("idempotency-key")).toBe(false);
});

test("a run with the caller's key is retried", async () => {
  using server = new StandIn(lost, json({ ...ENDED, stdout: "once", stderr: "" }));
  const done = await server.client().execute({ sessionId: "s", code: "1" }, { idempotencyKey: "mine" });
  expect(done.stdout).toBe("once");
  expect(server.asked.map(({ headers }) => headers.get("idempotency-key"))).toEqual(["mine", "mine"]);
});

test("a run refused by the rate limit is retried after Retry-After", async () => {
  using server = new StandIn(
    refusal(429, "rate_limit_exceeded", { "Retry-After": "1" }),
    json({ ...ENDED, stdout: "", stderr: "" }),
  );
  const before = performance.now();
  await server.client().execute({ sessionId: "s", code: "1" });
  expect(performance.now() - before).toBeGreaterThanOrEqual(990);
});

const page =
  (status: number, headers: Record<string, string> = {}) =>
  () =>
    new Response("<html>No</html>", { status, headers });

test("a proxy's 429 is obeyed and the call retried", async () => {
  using server = new StandIn(page(429, { "Retry-After": "2" }), json({ ...ENDED, stdout: "1", stderr: "" }));
  using timers = new FastTimers(100);
  expect((await server.client().execute({ sessionId: "s", code: "1" })).stdout).toBe("1");
  expect(timers.asked).toContain(2000);
});

test("a Retry-After that is not a number is ignored", async () => {
  for (const after of ["", "NaN", "Infinity", "-1", "0x3c", "1e3", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT"]) {
    using server = new StandIn(page(503, { "Retry-After": after }));
    const failure = await failureOf(server.client({ maxRetries: 0 }).sessions.get("s"));
    expect([after, (failure as BuntimeError).retryAfter]).toEqual([after, null]);
  }
});

test("a response that is not an object is an error", async () => {
  for (const body of [null, [1], "text"]) {
    using server = new StandIn(json(body));
    expect(await failureOf(server.client().sessions.get("s"))).toHaveProperty("code", "unexpected_answer");
  }
});

test("a read is retried after any temporary failure, at most maxRetries times", async () => {
  using server = new StandIn(refusal(500, "internal_error"), lost, json({ ...CREATED, state: "active" }));
  expect((await server.client().sessions.get("s")).state).toBe("active");
  using broken = new StandIn(refusal(503, "unavailable"));
  expect(await failureOf(broken.client({ maxRetries: 3 }).sessions.get("s"))).toBeInstanceOf(Unavailable);
  expect(broken.asked).toHaveLength(4);
  using once = new StandIn(refusal(503, "unavailable"));
  await failureOf(once.client({ maxRetries: 0 }).sessions.get("s"));
  expect(once.asked).toHaveLength(1);
});

test("an error that would repeat is thrown at once", async () => {
  using server = new StandIn(refusal(400, "invalid_request"));
  await failureOf(server.client().sessions.create());
  expect(server.asked).toHaveLength(1);
});

test("a deletion that finds nothing succeeds after a lost response, and fails at the first attempt", async () => {
  using server = new StandIn(lost, refusal(404, "session_not_found"));
  expect(await server.client().sessions.delete("ses_1")).toEqual({ deleted: true, sessionId: "ses_1" });
  using limited = new StandIn(
    refusal(429, "rate_limit_exceeded", { "Retry-After": "0" }),
    refusal(404, "session_not_found"),
  );
  expect(await failureOf(limited.client().sessions.delete("ses_1"))).toHaveProperty("code", "session_not_found");
  using empty = new StandIn(refusal(404, "session_not_found"));
  expect(await failureOf(empty.client().sessions.delete("ses_1"))).toHaveProperty("code", "session_not_found");
});

test("a deletion that finds nothing fails after a refusal before any work", async () => {
  for (const details of [{ waking: true }, { fetching: true }]) {
    const error = { code: "unavailable", retryable: true, message: "later", details };
    using server = new StandIn(json({ error }, 503), refusal(404, "file_not_found"));
    const failure = await failureOf(server.client().sessions.open("ses_1").files.delete("a.txt"));
    expect(failure).toHaveProperty("code", "file_not_found");
    expect(server.asked).toHaveLength(2);
  }
});

test("a late response is a RequestTimeout, and a run's timeout adds to the client's", async () => {
  const slow = async () => (await Bun.sleep(700), Response.json({ ...ENDED, stdout: "", stderr: "" }));
  using server = new StandIn(slow);
  const client = server.client({ timeout: 300, maxRetries: 0 });
  expect(await failureOf(client.sessions.get("s"))).toBeInstanceOf(RequestTimeout);
  expect((await client.execute({ sessionId: "s", code: "1", timeout: 1 })).exitCode).toBe(0);
});

test("the caller's signal ends a call, or the wait before a retry, with its reason", async () => {
  using server = new StandIn(() => new Promise(() => undefined));
  const reason = new Error("enough");
  const stop = new AbortController();
  setTimeout(() => stop.abort(reason), 20);
  expect(await failureOf(server.client().sessions.get("s", { signal: stop.signal }))).toBe(reason);
  expect(await failureOf(server.client().sessions.get("s", { signal: stop.signal }))).toBe(reason);
  using refusing = new StandIn(refusal(503, "unavailable", { "Retry-After": "30" }));
  const next = new AbortController();
  const waiting = refusing.client({ onRetry: () => setTimeout(() => next.abort(reason), 5) });
  expect(await failureOf(waiting.sessions.get("s", { signal: next.signal }))).toBe(reason);
});

test("a refused connection is an error that says that nothing was begun", async () => {
  const server = new StandIn(json({}));
  server[Symbol.dispose]();
  const failure = await failureOf(server.client({ maxRetries: 0 }).execute({ sessionId: "s", code: "1" }));
  expect(failure).toBeInstanceOf(ConnectionFailed);
  expect((failure as ConnectionFailed).begun).toBe(false);
});
