/** A real guest on a free port with a workspace of its own, and a host's side of the protocol. */

import { setDefaultTimeout } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Link, type Reply, SECRET } from "./link";

setDefaultTimeout(30_000); // the machine may be busy with other tests

/** scripts/native makes it. */
export const PROGRAM = process.env["GUEST_PROGRAM"] ?? join(import.meta.dir, "../native/build/guest");

export interface End {
  exitCode: number;
  truncated: boolean;
  filesWritten: string[];
  filesWrittenTruncated: boolean;
  /** Not told where it is true. */
  started?: boolean;
}

export interface Outcome extends End {
  stdout: string;
  stderr: string;
  bytes: Buffer;
}

export interface FileToWrite {
  path: string;
  content: string | Uint8Array;
  mode?: number | null;
  append?: boolean;
  size?: number;
}

export class Guest {
  #link: Promise<Link> | null = null;

  private constructor(
    readonly port: number,
    readonly workspace: string,
    readonly process: Bun.Subprocess,
  ) {}

  static async start(settings: Record<string, string> = {}): Promise<Guest> {
    // in a directory of its own, so that a test may try to delete the workspace's parent
    const workspace = join(realpathSync(mkdtempSync(join(tmpdir(), "buntime-guest-"))), "workspace");
    mkdirSync(workspace);
    const port = freePort();
    const process = Bun.spawn([PROGRAM], {
      cwd: "/",
      env: {
        GUEST_ADDRESS: "127.0.0.1",
        GUEST_PORT: String(port),
        GUEST_SECRET: SECRET,
        GUEST_BUN: globalThis.process.execPath,
        GUEST_BOOT: join(import.meta.dir, "../src/boot/boot.js"),
        GUEST_KERNEL: join(import.meta.dir, "../src/kernel/main.ts"),
        GUEST_WORKSPACE: workspace,
        ...settings,
      },
      stdio: ["ignore", "inherit", "inherit"],
    });
    const guest = new Guest(port, workspace, process);
    while (!(await guest.answers())) {
      if (process.exitCode !== null) throw new Error("the guest did not start");
      await Bun.sleep(2);
    }
    return guest;
  }

  async stop(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
    Bun.spawnSync(["rm", "-rf", dirname(this.workspace)]);
  }

  private async answers(): Promise<boolean> {
    return this.get("/health").then(
      (response) => response.ok,
      () => false,
    );
  }

  /** The path in the workspace. */
  at(path: string): string {
    return join(this.workspace, path);
  }

  /** Over the one connection that tests share. */
  async ask(target: string, body?: string | Uint8Array | ReadableStream, signal?: AbortSignal): Promise<Reply> {
    this.#link ??= Link.open(this.port);
    this.#link.catch(() => (this.#link = null));
    return (await this.#link).ask(target, body, signal);
  }

  /** A connection of its own. */
  link(): Promise<Link> {
    return Link.open(this.port);
  }

  get(path: string, query: Record<string, string | number> = {}, signal?: AbortSignal): Promise<Reply> {
    return this.ask(`GET ${path}${queryOf(query)}`, undefined, signal);
  }

  post(
    path: string,
    query: Record<string, string | number> = {},
    body?: string | Uint8Array | ReadableStream,
    signal?: AbortSignal,
  ): Promise<Reply> {
    return this.ask(`POST ${path}${queryOf(query)}`, body, signal);
  }

  async park(): Promise<number> {
    return ((await (await this.post("/spares")).json()) as { pid: number }).pid;
  }

  /** Sends a run to a fresh spare; the answer streams. */
  async begin(body: Record<string, unknown>, signal?: AbortSignal): Promise<Reply> {
    return this.post("/run", { spare: await this.park() }, JSON.stringify(body), signal);
  }

  async run(body: Record<string, unknown>): Promise<Outcome> {
    const response = await this.begin(body);
    if (!response.ok) throw new Error(`run: ${response.status} ${await response.text()}`);
    return outcomeOf(Buffer.from(await response.arrayBuffer()));
  }

  async write(...files: FileToWrite[]): Promise<Reply> {
    return this.post("/files/write", {}, uploadOf(files));
  }

  async list(path: string, query: Record<string, string | number> = {}): Promise<{ files: Listed[]; total: number }> {
    const response = await this.get("/files/list", { path, ...query });
    if (!response.ok) throw new Error(`list: ${response.status} ${await response.text()}`);
    return (await response.json()) as { files: Listed[]; total: number };
  }

  /** Private memory, kB. */
  get memory(): number {
    const rollup = readFileSync(`/proc/${this.process.pid}/smaps_rollup`, "latin1");
    return Number(/^Private_Dirty: +(\d+)/m.exec(rollup)![1]);
  }
}

export interface Listed {
  path: string;
  size: number;
  modified: number;
  type: string;
}

export async function failure(response: Response): Promise<[number, string]> {
  return [response.status, ((await response.json()) as { errno: string }).errno];
}

export function uploadOf(files: FileToWrite[]): Buffer {
  const contents = files.map(({ content }) => Buffer.from(content as string));
  const specs = files.map(({ path, mode = null, append = false, size }, at) => ({
    path,
    mode,
    append,
    size: size ?? contents[at]!.length,
  }));
  const head = Buffer.from(JSON.stringify({ files: specs }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, ...contents]);
}

/** Reads frames until there are no more whole ones. */
export function framesOf(bytes: Buffer): [string, Buffer][] {
  const frames: [string, Buffer][] = [];
  for (let at = 0; at + 5 <= bytes.length;) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    frames.push([String.fromCharCode(bytes[at]!), bytes.subarray(at + 5, end)]);
    at = end;
  }
  return frames;
}

export function outcomeOf(bytes: Buffer): Outcome {
  const frames = framesOf(bytes);
  const last = frames.pop();
  if (last?.[0] !== "x") throw new Error("no result");
  const stream = (type: string) =>
    Buffer.concat(frames.filter(([each]) => each === type).map(([, payload]) => payload));
  const end = JSON.parse(last[1].toString()) as End;
  return { ...end, stdout: stream("o").toString(), stderr: stream("e").toString(), bytes: stream("o") };
}

function queryOf(query: Record<string, string | number>): string {
  const parts = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return parts.length === 0 ? "" : `?${parts.join("&")}`;
}

export function freePort(): number {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const { port } = server;
  void server.stop(true);
  return port!;
}
