import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compressed } from "../src/gzip";
import { packed, unpacked } from "../src/local_folders";
import { END, entriesOf, headOf, paddingOf, type EntryHead } from "../src/tar";
import { failureOf } from "./stand_in";

const folder = mkdtempSync(join(tmpdir(), "buntime-archives-"));
afterAll(() => rmSync(folder, { recursive: true }));
let made = 0;
const fresh = () => join(folder, String((made += 1)));
const bytes = (text: string) => new TextEncoder().encode(text);

async function* archive(...entries: (EntryHead & { text?: string })[]) {
  for (const entry of entries) {
    yield headOf(entry);
    yield bytes(entry.text ?? "");
    yield paddingOf(entry.size);
  }
  yield END;
}

const file = (path: string, text: string) =>
  ({ path, type: "file", size: bytes(text).length, mode: 0o644, text }) as const;
const link = (path: string, target: string) => ({ path, type: "symlink", size: 0, mode: 0o777, target }) as const;

function streamOf(parts: AsyncGenerator<Uint8Array>): ReadableStream {
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await parts.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
}

/** Makes a folder with what archives have trouble with. */
function difficult(): string {
  const at = fresh();
  const deep = join(at, "d".repeat(150), "é".repeat(60));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, "x".repeat(120)), "deep");
  writeFileSync(join(at, "empty"), "");
  writeFileSync(join(at, "run.sh"), "#!/bin/sh\n");
  chmodSync(join(at, "run.sh"), 0o755);
  writeFileSync(join(at, "large"), Buffer.alloc(3_000_001, 7));
  symlinkSync(`${"d".repeat(150)}/${"é".repeat(60)}/${"x".repeat(120)}`, join(at, "link"));
  mkdirSync(join(at, "nothing in it"));
  return at;
}

function shown(at: string): string[] {
  return (readdirSync(at, { recursive: true }) as string[]).sort();
}

test("packing and unpacking preserves a folder, whatever its names", async () => {
  const [from, to] = [difficult(), fresh()];
  await unpacked(packed(from), to);
  expect(shown(to)).toEqual(shown(from));
  expect(statSync(join(to, "run.sh")).mode & 0o777).toBe(0o755);
  expect(readFileSync(join(to, "large")).equals(Buffer.alloc(3_000_001, 7))).toBe(true);
  expect(readFileSync(join(to, "link"), "utf8")).toBe("deep");
});

test("tar reads what we pack, and we unpack what tar writes", async () => {
  const [from, to, back] = [difficult(), fresh(), fresh()];
  const packing = `${to}.tar.gz`;
  await Bun.write(packing, await Bun.readableStreamToArrayBuffer(streamOf(packed(from))));
  mkdirSync(to);
  expect(Bun.spawnSync(["tar", "xzf", packing, "-C", to]).exitCode).toBe(0);
  expect(shown(to)).toEqual(shown(from));
  for (const format of ["gnu", "pax"]) {
    const written = `${back}-${format}.tar.gz`;
    expect(Bun.spawnSync(["tar", `--format=${format}`, "-czf", written, "-C", from, "."]).exitCode).toBe(0);
    await unpacked(Bun.file(written).stream(), `${back}-${format}`);
    expect(shown(`${back}-${format}`)).toEqual(shown(from));
  }
});

test("entries are the same wherever the bytes are split", async () => {
  const whole = Buffer.concat(
    await Array.fromAsync(archive(file("a.txt", "olá"), link("l", "a.txt"), file("b/c.txt", "x".repeat(600)))),
  );
  for (const size of [1, 7, 511, 512, 513]) {
    async function* parts() {
      for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
    }
    const told: unknown[] = [];
    for await (const { path, type, target, content } of entriesOf(parts()))
      told.push([path, type, target, path === "a.txt" ? Buffer.concat(await Array.fromAsync(content)).toString() : ""]);
    expect(told).toEqual([
      ["a.txt", "file", "", "olá"],
      ["l", "symlink", "a.txt", ""],
      ["b/c.txt", "file", "", ""],
    ]);
  }
});

for (const [what, entries] of [
  ["a name with ..", [file("../out", "x")]],
  ["a name with .. further in", [file("a/../../out", "x")]],
  ["an absolute name", [file("/tmp/buntime-out", "x")]],
  ["a link out", [link("l", "../out")]],
  ["an absolute link", [link("l", "/etc/passwd")]],
  ["a link further in that leads out", [link("a/l", "../../out")]],
  ["a link that leads out by another", [link("here", "."), link("l", "here/../out")]],
  ["a hard link out", [{ ...link("l", "../out"), type: "hardlink" }]],
] as [string, EntryHead[]][])
  test(`${what} is refused, and nothing is written outside`, async () => {
    const to = join(fresh(), "inside");
    mkdirSync(join(to, ".."));
    writeFileSync(join(to, "../out-before"), "");
    expect(String(await failureOf(unpacked(compressed(archive(...entries)), to)))).toContain("leads out of the folder");
    expect(readdirSync(join(to, "..")).sort()).toEqual(["inside", "out-before"]);
    expect(shown(to)).toEqual([]);
    expect(existsSync("/tmp/buntime-out")).toBe(false);
  });

test("nothing is written through links, whether from the archive or already there", async () => {
  const [to, elsewhere] = [fresh(), fresh()];
  for (const at of [to, elsewhere]) mkdirSync(at);
  await unpacked(compressed(archive(link("l", "real"), file("l", "not through"), file("real/x", "x"))), to);
  expect(readlinkSync(join(to, "l"))).toBe("real");
  expect(readFileSync(join(to, "real/x"), "utf8")).toBe("x");
  symlinkSync(elsewhere, join(to, "away"));
  expect(String(await failureOf(unpacked(compressed(archive(file("away/x", "x"))), to)))).toContain("not a folder");
  await unpacked(compressed(archive(file("away", "in its place"))), to);
  expect(readdirSync(elsewhere)).toEqual([]);
  expect(readFileSync(join(to, "away"), "utf8")).toBe("in its place");
});

test("a truncated, damaged or malformed archive is an error", async () => {
  const whole = Buffer.concat(await Array.fromAsync(compressed(archive(file("a.txt", "a".repeat(5000))))));
  const given = (content: Uint8Array) => unpacked(new Blob([content as BlobPart]).stream(), fresh());
  await failureOf(given(whole.subarray(0, whole.length - 20)));
  await failureOf(given(bytes("no archive")));
  const noTar = Buffer.from(Bun.gzipSync(Buffer.alloc(1024, 65)));
  expect(String(await failureOf(given(noTar)))).toContain("not an archive");
  const cut = Buffer.from(Bun.gzipSync(headOf(file("a.txt", "abc")) as Uint8Array<ArrayBuffer>));
  expect(String(await failureOf(given(cut)))).toContain("too early");
});

/** Bytes from the network, which records whether they were read to the end or left. */
class Coming implements AsyncIterable<Uint8Array> {
  isOver = false;
  isLeft = false;
  #at = 0;

  constructor(
    readonly content: Uint8Array,
    readonly size: number,
  ) {}

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return {
      next: async () => {
        await Bun.sleep(1);
        const value = this.content.subarray(this.#at, (this.#at += this.size));
        this.isOver = value.length === 0;
        return { value, done: this.isOver };
      },
      return: async () => {
        this.isLeft = true;
        return { value: undefined, done: true };
      },
    };
  }
}

test("a download is left when unpacking fails, and read to its end when it does not", async () => {
  const noise = crypto.getRandomValues(new Uint8Array(60_000));
  const rest = file("z", Buffer.from(noise).toString("hex"));
  const zipped = async (...entries: EntryHead[]) =>
    Buffer.concat(await Array.fromAsync(compressed(archive(...entries))));
  const failing = new Coming(await zipped(link("a", "/etc/passwd"), rest), 4096);
  expect(String(await failureOf(unpacked(failing, fresh())))).toContain("leads out");
  await Bun.sleep(20);
  expect([failing.isOver, failing.isLeft]).toEqual([false, true]);
  const whole = await zipped(rest);
  for (const size of [whole.length, whole.length - 8, 4096]) {
    const coming = new Coming(whole, size);
    await unpacked(coming, fresh());
    expect(coming.isOver).toBe(true);
  }
});
