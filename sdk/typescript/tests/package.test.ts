/** The package as published: packed, installed in its own folder, and used from there. */

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CREATED, ENDED, events, refusal } from "./stand_in";

setDefaultTimeout(120_000); // the machine may be busy with other tests

const BUN = process.execPath;
const NODE = Bun.which("node");
const ROOT = join(import.meta.dir, "..");
const folder = mkdtempSync(join(tmpdir(), "buntime-package-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function ran(command: string[], cwd: string, env: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn(command, { cwd, env: { ...process.env, ...env }, stdout: "pipe", stderr: "pipe" });
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")} → ${code}\n${out}${err}`);
  return out;
}

beforeAll(async () => {
  await ran([BUN, "build.mjs"], ROOT);
  await ran([BUN, "pm", "pack", "--ignore-scripts", "--quiet", "--destination", folder], ROOT);
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
  const dependencies = { "@buntime/sdk": `file:./buntime-sdk-${version}.tgz` };
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", type: "module", dependencies }));
  cpSync(join(import.meta.dir, "package"), folder, { recursive: true });
  await ran([BUN, "install"], folder);
});

test("only the package itself is installed, with only its published files", async () => {
  const installed = (await ran(["find", "node_modules", "-type", "f"], folder)).trim().split("\n").sort();
  const own = installed.filter((path) => path.startsWith("node_modules/@buntime/sdk/"));
  expect(installed.filter((path) => !own.includes(path) && !path.includes("/."))).toEqual([]);
  for (const path of own)
    expect(path).toMatch(/sdk\/(package\.json|README\.md|LICENSE|\.bun-tag|dist\/[\w/-]+(\.d\.ts|\.js))$/);
});

const SILENCE = 12_000; // ms: a variable sets Bun's idle timeout to 2 s instead of 300, which takes effect after 8 s

const SAMPLE = "console.log(6 * 7)"; // what the first samples execute

/** Serves what tests/package/calls.mjs asks for, and counts connections. */
class Server implements Disposable {
  readonly connections = new Set<number>();
  left = 0;
  slow = 0;
  readonly written: string[] = [];
  readonly #server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch: (request, server) => {
      const client = server.requestIP(request);
      if (client !== null) this.connections.add(client.port); // the client may have left already
      return this.#answer(request);
    },
  });

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const body = await request.text();
    if (pathname === "/sessions/create") return Response.json(CREATED);
    if (pathname === "/files/content" && request.method === "GET") return new Response("what is there");
    if (pathname.startsWith("/files/")) {
      if (searchParams.get("path") === "me.mjs") this.written.push(body);
      return Response.json({ path: "a", size: body.length });
    }
    if (pathname === "/sessions/absent")
      return refusal(404, "session_not_found", { "X-Request-Id": "abc" })(null as never);
    if (pathname === "/sessions/lost") return new Response("{", { headers: { "Content-Type": "text/html" } });
    if (request.method === "DELETE") return Response.json({ deleted: true, sessionId: CREATED.sessionId });
    if (pathname === "/execute") return await this.#run((JSON.parse(body) as { code: string }).code);
    if (pathname === "/slow") this.slow += 1;
    return await new Promise(() => undefined);
  }

  async #run(code: string): Promise<Response> {
    if (code === SAMPLE) return Response.json({ ...ENDED, stdout: "42\n", stderr: "" });
    if (code === "slow") {
      await Bun.sleep(SILENCE);
      return Response.json({ ...ENDED, stdout: "late", stderr: "" });
    }
    if (code === "stream")
      return events(`event: stdout\ndata: {"data":"a"}\n\n`, `event: result\ndata: ${JSON.stringify(ENDED)}\n\n`);
    if (code === "never") return await new Promise(() => undefined);
    const start = (controller: ReadableStreamDefaultController) =>
      controller.enqueue(`event: stdout\ndata: {"data":"a"}\n\n`);
    return new Response(new ReadableStream({ start, cancel: () => void (this.left += 1) }));
  }
}

/** Returns a page's first TypeScript sample, as a file that a reader may save. */
function firstSample(page: string): string {
  const text = readFileSync(join(ROOT, "../..", page), "utf8");
  const path = join(folder, `${page.replaceAll("/", "-")}.mjs`);
  writeFileSync(path, /^```ts\n(.*?)^```$/ms.exec(text)![1]!);
  return path;
}

for (const page of ["README.md", "docs/typescript.md", "sdk/typescript/README.md"])
  for (const [runtime, command] of [
    ["Bun", BUN],
    ["Node", NODE],
  ] as const)
    test.skipIf(command === null)(`the first sample of ${page} runs in ${runtime} as it stands`, async () => {
      using server = new Server();
      const env = { BUNTIME_URL: server.url, BUNTIME_API_KEY: "btk_test" };
      expect((await ran([command!, firstSample(page)], folder, env)).trim()).toBe("42");
    });

for (const page of ["docs/sdks.md", "docs/previews.md", "docs/moving.md"])
  test.skipIf(NODE === null)(`Node parses the first sample of ${page}`, async () => {
    await ran([NODE!, "--check", firstSample(page)], folder);
  });

for (const [runtime, command] of [
  ["Bun", BUN],
  ["Node", NODE],
] as const)
  test.skipIf(command === null)(
    `in ${runtime} a wrong argument is refused, and a slow program asked once`,
    async () => {
      using server = new Server();
      const env = { BUNTIME_URL: server.url, BUNTIME_API_KEY: "btk_test" };
      const told = JSON.parse(await ran([command!, "refusals.mjs"], folder, env)) as Record<string, unknown>;
      expect(told).toEqual({
        late: `RequestTimeout: Port 8080 of session ${CREATED.sessionId} did not answer GET /slow within 0.2 seconds.`,
        object: expect.stringMatching(
          /^InvalidRequest: body must be a string, .*, not an object\. To send JSON, use json\.$/,
        ),
        number: "InvalidRequest: timeout must be at least 0 seconds, not NaN.",
        signal: "InvalidRequest: signal must be an AbortSignal, not a string.",
        size: 3,
        option: expect.stringMatching(/^InvalidRequest: Buntime has no option apikey\. The nearest are apiKey, /),
        metadata: { user: "u1" },
      });
      expect(server.slow).toBe(1);
    },
  );

for (const [runtime, command] of [
  ["Bun", BUN],
  ["Node", NODE],
] as const)
  test.skipIf(command === null)(
    `in ${runtime} calls, streams, timeouts and files work, on few connections and without stalls`,
    async () => {
      using server = new Server();
      const to = join(folder, `${runtime}.out`);
      const env = { BUNTIME_URL: server.url, BUNTIME_API_KEY: "btk_test", TO: to, BUN_CONFIG_HTTP_IDLE_TIMEOUT: "2" };
      const told = JSON.parse(await ran([command!, "calls.mjs"], folder, env)) as Record<string, unknown>;
      const { p50, streamedP50, ...rest } = told;
      expect(rest).toEqual({
        id: CREATED.sessionId,
        slow: "late",
        events: [
          { type: "stdout", data: "a" },
          { type: "result", ...ENDED },
        ],
        lost: ["unexpected_answer", 200, true],
        absent: ["SessionNotFound", true, "abc"],
        refused: ["connection_failed", false],
        aborted: "mine",
        late: "request_timeout",
        faked: "faked",
        isSame: true,
        ownFailure: ["RangeError", "of the caller's own"],
        noFile: "ENOENT",
      });
      expect(p50).toBeLessThan(20); // Nagle's algorithm would stall for 40 ms
      expect(streamedP50).toBeLessThan(20);
      expect(readFileSync(to, "utf8")).toBe("what is there");
      expect(server.written).toEqual([readFileSync(join(folder, "calls.mjs"), "utf8")]);
      expect(server.left).toBe(1);
      expect(server.connections.size).toBeLessThanOrEqual(6); // one, and another after each that was closed
    },
  );

for (const [runtime, command] of [
  ["Bun", BUN],
  ["Node", NODE],
] as const) {
  test.skipIf(command === null)(
    `in ${runtime} an upload refused midway and an archive that fails to unpack leave nothing open`,
    async () => {
      const env = { BUNTIME_API_KEY: "btk_test", TO: join(folder, `${runtime}.connections`) };
      const told = JSON.parse(await ran([command!, "connections.mjs"], folder, env)) as Record<string, unknown>;
      expect(told).toEqual({
        uploads: { told: ["disk_full"], left: true, opened: 0, refused: 0, returned: 3 },
        archives: { size: 16 << 20, used: 1, failed: "ERR_FS_EISDIR", left: true },
      });
    },
  );

  test.skipIf(command === null)(
    `in a simulated page in ${runtime}, parts are gathered before they are sent`,
    async () => {
      expect(JSON.parse(await ran([command!, "page.mjs"], folder))).toEqual({
        sent: Array(3).fill(["some and more", null]),
        failed: "of the caller's own",
        stopped: "mine",
        returned: true,
      });
    },
  );
}

test.skipIf(NODE === null)(
  "in Node a run is not retried when its connection breaks, and a redirect is not taken for a response",
  async () => {
    const told = JSON.parse(await ran([NODE!, "node.mjs"], folder, { BUNTIME_API_KEY: "btk_test" }));
    expect(told).toEqual({
      lost: ["connection_failed", true],
      runs: 1,
      moved: Array(3).fill(["unexpected_answer", 301]),
    });
  },
);

/** A server with a certificate for `localhost` and `*.p.test`, whose session has its preview at `name`. */
function secured(name: string): Bun.Server<undefined> {
  const tls = { cert: Bun.file(join(folder, "cert.pem")), key: Bun.file(join(folder, "key.pem")) };
  const server: Bun.Server<undefined> = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls,
    fetch: ({ headers }) => {
      const host = headers.get("host")!;
      if (!host.startsWith("localhost")) return new Response(host.split(":")[0]);
      return Response.json({ ...CREATED, previewUrl: `https://${name}:${server.port}` });
    },
  });
  return server;
}

for (const [runtime, command] of [
  ["Bun", BUN],
  ["Node", NODE],
] as const)
  test.skipIf(command === null)(`in ${runtime} a preview needs a certificate of its own name`, async () => {
    const names = "subjectAltName=DNS:localhost,DNS:*.p.test";
    const openssl =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=p.test";
    await ran([...openssl.split(" "), "-addext", names, "-keyout", "key.pem", "-out", "cert.pem"], folder);
    const [good, bad] = [secured("ses-1.p.test"), secured("ses-1.elsewhere.test")];
    try {
      const urls = [good, bad].map(({ port }) => `https://localhost:${port}`).join(" ");
      const env = { BUNTIME_API_KEY: "btk_test", NODE_EXTRA_CA_CERTS: join(folder, "cert.pem"), URLS: urls };
      const told = JSON.parse(await ran([command!, "tls.mjs"], folder, env));
      expect(told).toEqual(["ses-1.p.test", ["connection_failed", false]]);
    } finally {
      await Promise.all([good.stop(true), bad.stop(true)]);
    }
  });

for (const [resolution, module] of [
  ["bundler", "esnext"],
  ["nodenext", "nodenext"],
] as const)
  test(`a strict program type-checks with module resolution ${resolution}`, async () => {
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      target: "es2022",
      types: [],
    };
    const lib = ["es2022", "dom", "dom.iterable"];
    const config = {
      compilerOptions: { ...compilerOptions, lib, module, moduleResolution: resolution },
      files: ["consumer.ts"],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    await ran([join(ROOT, "node_modules/.bin/tsc"), "-p", "."], folder);
  });

test("a bundle has only what is imported, and nothing that a browser lacks", async () => {
  const bundled = async (name: string, source: string): Promise<string> => {
    writeFileSync(join(folder, `${name}.ts`), source);
    await ran([BUN, "build", "--target=browser", "--outfile", `${name}.js`, `${name}.ts`], folder);
    return readFileSync(join(folder, `${name}.js`), "utf8");
  };
  const errors = await bundled(
    "errors",
    `import { SessionNotFound } from "@buntime/sdk"; console.log(SessionNotFound);`,
  );
  expect(errors).toContain("class SessionNotFound");
  for (const rest of ["class Buntime ", "/sessions/create", "class Files", "class NodeTransport", "DiskFull"])
    expect(errors).not.toContain(rest);
  expect(statSync(join(folder, "errors.js")).size).toBeLessThan(4000);
  const all = await bundled("all", `import { Buntime } from "@buntime/sdk"; console.log(Buntime);`);
  for (const part of ["/sessions/create", "class NodeTransport"]) expect(all).toContain(part);
  expect(all).not.toMatch(/^import |require\(|class FakeBuntime/m);
});
