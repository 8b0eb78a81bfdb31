import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as sdk from "../src/index";
import { BuntimeError } from "../src/index";
import { errorOf } from "../src/errors";
import { StandIn, failureOf, json, refusal } from "./stand_in";

/** Returns the server's codes, with the class name of each. */
function codesOfServer(): [string, string][] {
  const text = readFileSync(join(import.meta.dir, "../../../src/buntime/errors.py"), "utf8");
  const classes = [...text.matchAll(/^class (\w+)\([\s\S]*?(?=^class |$(?![\s\S]))/gm)];
  return classes.flatMap(([body, name]) => {
    const code = /^ {4}code = "(\w+)"/m.exec(body)?.[1];
    return code === undefined ? [] : [[code, name!] as [string, string]];
  });
}

test("each server code has its own class with the server's name", () => {
  const codes = codesOfServer();
  expect(codes.length).toBeGreaterThan(20);
  for (const [code, name] of codes) {
    const failure = errorOf({ code, message: "m", details: { a: 1 }, retryable: true }, 400, "r", 3);
    expect(failure.constructor).toBe(sdk[name as keyof typeof sdk] as never);
    expect(failure).toBeInstanceOf(BuntimeError);
    expect(failure).toMatchObject({
      code,
      status: 400,
      message: "m",
      details: { a: 1 },
      retryable: true,
      requestId: "r",
      retryAfter: 3,
    });
    expect(failure.name).toBe(name);
  }
});

test("an unknown code is a BuntimeError with every field of the error", () => {
  const failure = errorOf({ code: "too_new", message: "m", details: {}, retryable: false }, 418);
  expect(failure.constructor).toBe(BuntimeError);
  expect(failure.code).toBe("too_new");
  expect(errorOf({ code: "constructor", message: "m", details: {}, retryable: false }, 418).constructor).toBe(
    BuntimeError,
  );
});

test("a proxy's response is an error with its status", async () => {
  using server = new StandIn(() => new Response("<h1>Bad gateway</h1>", { status: 502 }));
  const failure = (await failureOf(server.client({ maxRetries: 0 }).sessions.get("s"))) as BuntimeError;
  expect(failure).toMatchObject({ code: "unexpected_answer", status: 502, retryable: true });
});

test("a page instead of JSON is an error", async () => {
  using server = new StandIn(() => new Response("<h1>Welcome</h1>"));
  const failure = (await failureOf(server.client().sessions.get("s"))) as BuntimeError;
  expect(failure).toMatchObject({ code: "unexpected_answer", status: 200 });
});

test("the request's id and the time to wait come from the headers", async () => {
  using server = new StandIn(refusal(429, "session_limit_exceeded", { "X-Request-Id": "abc", "Retry-After": "30" }));
  const failure = (await failureOf(server.client().sessions.create())) as BuntimeError;
  expect(failure).toMatchObject({ requestId: "abc", retryAfter: 30, status: 429 });
});

test("a missing key throws an error that says what to set", () => {
  const before = process.env.BUNTIME_API_KEY;
  delete process.env.BUNTIME_API_KEY;
  try {
    expect(() => new sdk.Buntime()).toThrow(sdk.Unauthorized);
    expect(() => new sdk.Buntime()).toThrow("BUNTIME_API_KEY");
  } finally {
    if (before !== undefined) process.env.BUNTIME_API_KEY = before;
  }
});

test("the key and the URL come from the environment", async () => {
  using server = new StandIn(json({ sessions: [], total: 0 }));
  const before = { ...process.env };
  Object.assign(process.env, { BUNTIME_API_KEY: "btk_of_environment", BUNTIME_URL: `${server.url}/` });
  try {
    expect(await new sdk.Buntime().sessions.list().all()).toEqual([]);
  } finally {
    for (const name of ["BUNTIME_API_KEY", "BUNTIME_URL"]) delete process.env[name];
    Object.assign(process.env, before);
  }
  expect(server.asked[0]!.headers.get("authorization")).toBe("Bearer btk_of_environment");
  expect(server.asked[0]!.path).toBe("/sessions");
});
