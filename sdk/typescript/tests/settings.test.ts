import { expect, test } from "bun:test";
import { Buntime, ConnectionFailed, FileConflict, InvalidRequest, Unauthorized } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { CREATED, StandIn, failureOf, json } from "./stand_in";

for (const apiKey of ["secret", "btk_", "btk_…", "Bearer btk_a", "btk_a b", "btk-a"])
  test(`the malformed key ${JSON.stringify(apiKey)} is refused before any request`, () => {
    const make = () => new Buntime({ apiKey });
    expect(make).toThrow(Unauthorized);
    expect(make).toThrow("malformed");
    expect(make).not.toThrow("secret");
  });

test("an empty key or URL never stands for the environment's", () => {
  const { BUNTIME_API_KEY, BUNTIME_URL } = process.env;
  Object.assign(process.env, { BUNTIME_API_KEY: "btk_a", BUNTIME_URL: "http://a.test" });
  try {
    expect(new Buntime().baseUrl).toBe("http://a.test");
    for (const empty of ["", " ", "\n"]) {
      expect(() => new Buntime({ apiKey: empty })).toThrow("apiKey is empty");
      expect(() => new Buntime({ baseUrl: empty })).toThrow(InvalidRequest);
    }
  } finally {
    for (const [name, value] of Object.entries({ BUNTIME_API_KEY, BUNTIME_URL }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  }
});

const URLS = ["localhost:8000", "ftp://localhost", "http://", "http:///path", "http://a:port"];
for (const baseUrl of [
  ...URLS,
  "http://a:99999",
  "http://[::1",
  "http://a b",
  "http://a?x=1",
  "http://a#x",
  "http://u:p@a",
])
  test(`the malformed URL ${baseUrl} is refused before any request`, () => {
    expect(() => new Buntime({ apiKey: "btk_a", baseUrl })).toThrow(InvalidRequest);
  });

for (const baseUrl of ["http://localhost:8000/", "https://[::1]:8443", "https://a.test/buntime", "http://a"])
  test(`the URL ${baseUrl} is taken`, () => {
    expect(new Buntime({ apiKey: "btk_a", baseUrl }).baseUrl).toBe(baseUrl.replace(/\/$/, ""));
  });

test("a connection error names the server", async () => {
  const client = new Buntime({ apiKey: "btk_a", baseUrl: "http://127.0.0.1:9", maxRetries: 0 });
  const failure = await failureOf(client.sessions.get("s"));
  expect(failure).toBeInstanceOf(ConnectionFailed);
  expect((failure as Error).message).toStartWith("Cannot connect to http://127.0.0.1:9: ");
});

test("the client knows its rate limit from the last response", async () => {
  const headers = { "X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "99", "X-RateLimit-Reset": "1700000000" };
  using server = new StandIn(json(CREATED, 200, headers), json(CREATED));
  const client = server.client();
  expect(client.rateLimit).toBeNull();
  for (const _ of [1, 2]) await client.sessions.get("s");
  expect(client.rateLimit).toEqual({ limit: 100, remaining: 99, reset: 1_700_000_000 });
});

test("several files are written with one call, and those before one that fails stay", async () => {
  const { files } = await new FakeBuntime().sessions.create();
  const given = [
    { path: "a.txt", content: "a" },
    { path: "bin/b", content: Uint8Array.of(0, 255), mode: "755" },
  ];
  expect(await files.write(given)).toEqual([
    { path: "a.txt", size: 1 },
    { path: "bin/b", size: 2 },
  ]);
  expect([await files.read("a.txt"), (await files.stat("bin/b")).mode]).toEqual(["a", "755"]);
  await files.mkdir("taken");
  const failure = await failureOf(files.write({ "c.txt": "c", taken: "d", "e.txt": "e" }));
  expect(failure).toBeInstanceOf(FileConflict);
  expect([await files.exists("c.txt"), await files.exists("e.txt")]).toEqual([true, false]);
});

test("a file whose path ends with a slash is refused", async () => {
  const session = await new FakeBuntime().onExecute("1", "").sessions.create();
  const failure = await failureOf(session.files.write("a/", "x"));
  expect(failure).toBeInstanceOf(InvalidRequest);
  expect((failure as InvalidRequest).details).toEqual({ field: "path" });
  expect(await failureOf(session.files.write("a/", Uint8Array.of(1)))).toBeInstanceOf(InvalidRequest);
  expect(await failureOf(session.execute("1", { files: { "a/": "x" } }))).toBeInstanceOf(InvalidRequest);
  expect(await session.files.exists("a")).toBe(false);
});

test("files of a run may be bytes, by path or as a list", async () => {
  const client = new FakeBuntime().onExecute("1", ({ files }) => String(files["a.bin"]));
  const session = await client.sessions.create();
  const content = Uint8Array.of(0, 255);
  expect((await session.execute("1", { files: { "a.bin": content } })).stdout).toBe("0,255");
  expect((await session.execute("1", { files: [{ path: "a.bin", content }] })).stdout).toBe("0,255");
});
