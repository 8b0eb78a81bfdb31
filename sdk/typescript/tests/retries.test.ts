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

test("delays double, up to half of one is left to chance, and a server's wish comes first", () => {
  expect(delayBefore(busy(null), 1, true, RULES, 1)).toBe(100);
  expect(delayBefore(busy(null), 2, true, RULES, 1)).toBe(200);
  expect(delayBefore(busy(null), 2, true, RULES, 0)).toBe(100);
  expect(delayBefore(busy(3), 1, true, RULES, 1)).toBe(3000);
});

test("no further attempt is made after the last, nor where the server asks for more than a minute", () => {
  expect(delayBefore(busy(null), 3, true, RULES, 1)).toBeNull();
  expect(delayBefore(busy(61), 1, true, RULES, 1)).toBeNull();
});

test("what cannot be repeated is made again only where nothing was begun", () => {
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

test("a limit that only its user can lift is told of at once", () => {
  const full = new SessionLimitExceeded("full", { code: "session_limit_exceeded", status: 429, retryAfter: 30 });
  expect(delayBefore(full, 1, true, RULES, 1)).toBeNull();
});

test("a create whose answer is lost after the work is repeated with the same key, and there is one session", async () => {
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

test("a create whose answer was lost is waited for while the server still works on it", async () => {
  const working = refusal(409, "idempotency_in_progress");
  using server = new StandIn(lost, working, working, working, working, working, () => Response.json(CREATED));
  expect((await server.client().sessions.create()).id).toBe(CREATED.sessionId);
  expect(new Set(server.asked.map(({ headers }) => headers.get("idempotency-key"))).size).toBe(1);
});

test("each create has a key of its own, and the caller's is used where there is one", async () => {
  using server = new StandIn(json(CREATED));
  const { sessions } = server.client();
  await sessions.create();
  await sessions.create();
  await sessions.create({}, { idempotencyKey: "mine" });
  const keys = server.asked.map(({ headers }) => headers.get("idempotency-key"));
  expect(new Set(keys).size).toBe(3);
  expect(keys[2]).toBe("mine");
});

test("a run whose answer is lost is not made again", async () => {
  using server = new StandIn(lost);
  expect(await failureOf(server.client().execute({ sessionId: "s", code: "1" }))).toBeInstanceOf(ConnectionFailed);
  expect(server.asked).toHaveLength(1);
  expect(server.asked[0]!.headers.has("idempotency-key")).toBe(false);
});

test("a run with the caller's key is made again", async () => {
  using server = new StandIn(lost, json({ ...ENDED, stdout: "once", stderr: "" }));
  const done = await server.client().execute({ sessionId: "s", code: "1" }, { idempotencyKey: "mine" });
  expect(done.stdout).toBe("once");
  expect(server.asked.map(({ headers }) => headers.get("idempotency-key"))).toEqual(["mine", "mine"]);
});

test("a run that the rate limit refused is made after the time that the server names", async () => {
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

test("a proxy's refusal of too many requests is obeyed, and the call made again", async () => {
  using server = new StandIn(page(429, { "Retry-After": "2" }), json({ ...ENDED, stdout: "1", stderr: "" }));
  using timers = new FastTimers(100);
  expect((await server.client().execute({ sessionId: "s", code: "1" })).stdout).toBe("1");
  expect(timers.asked).toContain(2000);
});

test("a Retry-After that is no number of seconds is none", async () => {
  for (const after of ["", "NaN", "Infinity", "-1", "0x3c", "1e3", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT"]) {
    using server = new StandIn(page(503, { "Retry-After": after }));
    const failure = await failureOf(server.client({ maxRetries: 0 }).sessions.get("s"));
    expect([after, (failure as BuntimeError).retryAfter]).toEqual([after, null]);
  }
});

test("an answer that is no object is no answer of the server's", async () => {
  for (const body of [null, [1], "text"]) {
    using server = new StandIn(json(body));
    expect(await failureOf(server.client().sessions.get("s"))).toHaveProperty("code", "unexpected_answer");
  }
});

test("what only reads is made again after any passing failure, and no more often than maxRetries says", async () => {
  using server = new StandIn(refusal(500, "internal_error"), lost, json({ ...CREATED, state: "active" }));
  expect((await server.client().sessions.get("s")).state).toBe("active");
  using broken = new StandIn(refusal(503, "unavailable"));
  expect(await failureOf(broken.client({ maxRetries: 3 }).sessions.get("s"))).toBeInstanceOf(Unavailable);
  expect(broken.asked).toHaveLength(4);
  using once = new StandIn(refusal(503, "unavailable"));
  await failureOf(once.client({ maxRetries: 0 }).sessions.get("s"));
  expect(once.asked).toHaveLength(1);
});

test("what is wrong stays wrong", async () => {
  using server = new StandIn(refusal(400, "invalid_request"));
  await failureOf(server.client().sessions.create());
  expect(server.asked).toHaveLength(1);
});

test("a deletion whose answer was lost and that finds nothing left is done; one that finds nothing at first is not", async () => {
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

test("an answer that does not come in time is a RequestTimeout, and a run's own time is on top of the client's", async () => {
  const slow = async () => (await Bun.sleep(700), Response.json({ ...ENDED, stdout: "", stderr: "" }));
  using server = new StandIn(slow);
  const client = server.client({ timeout: 300, maxRetries: 0 });
  expect(await failureOf(client.sessions.get("s"))).toBeInstanceOf(RequestTimeout);
  expect((await client.execute({ sessionId: "s", code: "1", timeout: 1 })).exitCode).toBe(0);
});

test("the caller's signal ends a call, and the wait before the next attempt, with its reason", async () => {
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

test("where nothing listens the failure says that nothing was begun", async () => {
  const server = new StandIn(json({}));
  server[Symbol.dispose]();
  const failure = await failureOf(server.client({ maxRetries: 0 }).execute({ sessionId: "s", code: "1" }));
  expect(failure).toBeInstanceOf(ConnectionFailed);
  expect((failure as ConnectionFailed).begun).toBe(false);
});
