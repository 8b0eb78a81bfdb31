/** Directories that are renamed while a watch has yet to look into them. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { framesOf, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

type Told = { event: string; path: string; from?: string };

async function changesOf(name: string, command: string, end: string): Promise<string[]> {
  const top = guest.at(name);
  mkdirSync(top, { recursive: true });
  const stop = new AbortController();
  const answer = await guest.get("/files/watch", { path: top, recursive: 1 }, stop.signal);
  const told: Told[] = [];
  let isReady = false;
  const read = async () => {
    let rest = Buffer.alloc(0);
    for await (const part of answer.body as unknown as AsyncIterable<Uint8Array>) {
      rest = Buffer.concat([rest, part]);
      for (const [kind, payload] of framesOf(rest)) {
        isReady ||= kind === "r";
        if (kind === "c") told.push(...(JSON.parse(payload.toString()) as Told[]));
        rest = rest.subarray(5 + payload.length);
      }
    }
  };
  void read().catch(() => undefined);
  const until = async (happened: () => boolean) => {
    for (const last = Date.now() + 10_000; !happened(); await Bun.sleep(5))
      if (Date.now() > last) throw new Error(`never: ${JSON.stringify(told)}`);
  };
  await until(() => isReady);
  expect(Bun.spawnSync(["bash", "-c", command], { cwd: top }).stderr.toString()).toBe("");
  await Bun.sleep(150);
  writeFileSync(`${top}/${end}`, "");
  await until(() => told.some(({ path }) => path === end));
  stop.abort();
  return told.map(({ event, path, from }) => `${event} ${from === undefined ? path : `${from}>${path}`}`);
}

test("what is in a new directory that is renamed at once is created", async () => {
  const told = await changesOf("a", "mkdir -p d/e; : > d/f; : > d/e/g; mv d h; mv h i", "end");
  const last = ["created i/e", "created i/e/g", "created i/f"]; // in the order of the file system
  expect(told.slice(0, 3)).toEqual(["created d", "renamed d>h", "renamed h>i"]);
  for (const each of last) expect(told).toContain(each);
});

test("so is what is in one whose parent is renamed", async () => {
  mkdirSync(guest.at("b/old"), { recursive: true });
  writeFileSync(guest.at("b/old/known"), "");
  const told = await changesOf("b", "mkdir old/n; : > old/n/f; mv old new", "end");
  expect(told).toContain("created new/n/f");
  expect(told).toContain("renamed old>new");
  expect(told.some((each) => each.endsWith("known"))).toBe(false);
});

test("directories that change places are watched where they are", async () => {
  const swaps = "for n in $(seq 50); do mv a t; mv b a; mv t b; mv a b/c; mv b/c a; done; : > a/x; : > b/y";
  mkdirSync(guest.at("c/a"), { recursive: true });
  mkdirSync(guest.at("c/b"), { recursive: true });
  const told = await changesOf("c", swaps, "end");
  expect(told).toContain("created a/x");
  expect(told).toContain("created b/y");
});

test("a directory that moves into what took its place does not confuse the watch", async () => {
  mkdirSync(guest.at("d/A/X"), { recursive: true });
  const command =
    "for n in $(seq 20); do mv A tmp; mkdir -p A/X; mv tmp A/X/A; mv A/X/A B; rm -r A; mv B A; done; : > A/X/z";
  await changesOf("d", command, "end");
  expect((await changesOf("d", ": > A/X/later", "end2")).some((each) => each.endsWith("A/X/later"))).toBe(true);
  expect((await guest.get("/health")).status).toBe(200);
});
