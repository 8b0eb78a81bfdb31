import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { failure, framesOf, Guest } from "./guest";

interface Shown {
  id: string;
  pid: number;
  status: string;
  exitCode: number | null;
  reason: string | null;
  name: string | null;
  command: string;
  endedAt: number | null;
}

interface Page {
  cursor: number;
  dropped: number;
  last: boolean;
  process: Shown;
  entries: [string, Buffer][];
}

const root = mkdtempSync(join(tmpdir(), "processes-"));
let guest: Guest;
let number = 0;
beforeAll(async () => ((guest = await Guest.start({ GUEST_PROCESSES: root })), undefined));
afterAll(async () => {
  await guest.stop();
  rmSync(root, { recursive: true, force: true });
});

const newId = () => `proc_${Date.now().toString(36).padStart(9, "0")}${(number++).toString(36).padStart(9, "0")}`;

async function start(body: Record<string, unknown>): Promise<Shown> {
  const id = newId();
  const whole = { id, cwd: guest.workspace, logBytes: 1 << 20, allLogBytes: 64 << 20, ...body };
  const answer = await guest.post("/processes/start", { spare: await guest.park() }, JSON.stringify(whole));
  if (!answer.ok) throw new Error(`start: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as Shown;
}

async function get(id: string): Promise<Shown | null> {
  return ((await (await guest.get("/processes/one", { id })).json()) as { process: Shown | null }).process;
}

function pagesOf(bytes: Buffer): Page[] {
  const pages: Page[] = [];
  let entries: [string, Buffer][] = [];
  for (const [kind, payload] of framesOf(bytes)) {
    if (kind === "n") throw new Error(payload.toString());
    if (kind === "p") pages.push({ ...(JSON.parse(payload.toString()) as Page), entries });
    if (kind === "p") entries = [];
    else entries.push([kind, payload.subarray(6)]);
  }
  return pages;
}

async function page(id: string, cursor = 0, limit = 1 << 18): Promise<Page> {
  const answer = await guest.get("/processes/logs", { id, cursor, limit });
  return pagesOf(Buffer.from(await answer.arrayBuffer()))[0]!;
}

/** Followed to the last page. */
async function whole(id: string, cursor = 0): Promise<{ out: string; err: string; dropped: number; end: Page }> {
  const answer = await guest.get("/processes/logs", { id, cursor, follow: 1 });
  const pages = pagesOf(Buffer.from(await answer.arrayBuffer()));
  const text = (kind: string) =>
    Buffer.concat(
      pages.flatMap(({ entries }) => entries.filter(([each]) => each === kind).map(([, b]) => b)),
    ).toString();
  return { out: text("o"), err: text("e"), dropped: pages.reduce((sum, p) => sum + p.dropped, 0), end: pages.at(-1)! };
}

test("a process starts, is listed, and its end and output are kept", async () => {
  const { id, pid, status } = await start({ command: "echo out; echo err >&2; exit 3", name: "one" });
  expect([pid > 0, status]).toEqual([true, "running"]);
  const { out, err, dropped, end } = await whole(id);
  expect([out, err, dropped]).toEqual(["out\n", "err\n", 0]);
  expect(end).toMatchObject({ cursor: 8, last: true, process: { status: "exited", exitCode: 3, reason: null } });
  expect(await get(id)).toMatchObject({ id, name: "one", exitCode: 3, command: "echo out; echo err >&2; exit 3" });
  const list = (await (await guest.get("/processes")).json()) as { processes: Shown[]; total: number };
  expect(list.processes[0]).toMatchObject({ id });
  expect(list.total).toBe(number);
  expect(await page(id, 8)).toMatchObject({ cursor: 8, last: true, entries: [] });
});

test("a killed process has its signal's code", async () => {
  const { id } = await start({ command: "sleep 100 & sleep 100; :" });
  expect(await (await guest.post("/processes/signal", { id, number: 9 })).json()).toEqual({ outcome: "sent" });
  expect((await whole(id)).end.process).toMatchObject({ status: "exited", exitCode: 137 });
  expect(await (await guest.post("/processes/signal", { id, number: 9 })).json()).toEqual({ outcome: "ended" });
});

test("a process past its timeout is killed and says so", async () => {
  const { id } = await start({ command: "sleep 100; :", timeout: 0.2 });
  expect((await whole(id)).end.process).toMatchObject({ exitCode: 124, reason: "timeout" });
});

test("input arrives as it is sent, and ends when it is closed", async () => {
  const { id } = await start({ command: "cat; echo end" });
  const send = async (text: string, close = 0) =>
    ((await (await guest.post("/processes/input", { id, close }, text)).json()) as { outcome: string }).outcome;
  const big = "x".repeat(300_000) + "\n";
  expect([await send("one\n"), await send(big), await send("", 1)]).toEqual(["sent", "sent", "sent"]);
  expect((await whole(id)).out).toBe(`one\n${big}end\n`);
  expect(await send("more")).toBe("ended");
});

test("unread input is refused beyond a limit, and closed input at once", async () => {
  const { id } = await start({ command: "exec <&-; sleep 100" });
  const reader = await start({ command: "sleep 100" });
  const send = async (id: string) =>
    ((await (await guest.post("/processes/input", { id }, "x".repeat(900_000))).json()) as { outcome: string }).outcome;
  await Bun.sleep(200);
  expect(await send(id)).toBe("closed");
  expect([await send(reader.id), await send(reader.id)]).toEqual(["sent", "busy"]);
  for (const each of [id, reader.id]) await guest.post("/processes/signal", { id: each, number: 9 });
});

test("no entry splits a character", async () => {
  const { id } = await start({
    command: "printf '\\xe2'; sleep 0.1; printf '\\x82'; sleep 0.1; printf '\\xacx\\xf0\\x9f'",
  });
  await whole(id);
  const texts = (await page(id)).entries.map(([, bytes]) => bytes.toString("hex"));
  expect(texts).toEqual(["e282ac78", "f09f"]);
});

test("a full log keeps the newest output, counts what is missing, and repeats nothing after a cursor", async () => {
  const { id } = await start({ command: "seq 1 200000", logBytes: 300_000 });
  const { out, dropped, end } = await whole(id, 0);
  const total = Array.from({ length: 200_000 }, (_, n) => `${n + 1}\n`).join("");
  expect(end.cursor).toBe(total.length);
  const again = await whole(id, 0);
  expect(again.dropped).toBe(total.length - again.out.length);
  expect(again.dropped).toBeGreaterThan(total.length - 300_001);
  expect(total.endsWith(again.out)).toBe(true);
  expect(out.length + dropped).toBe(total.length);
  let [text, cursor] = ["", again.dropped];
  for (let last = false; !last;) {
    const next = await page(id, cursor, 10_000);
    text += Buffer.concat(next.entries.map(([, bytes]) => bytes)).toString();
    ({ cursor, last } = next);
  }
  expect(text).toBe(again.out);
});

test("a cursor that no page gave is refused", async () => {
  const { id } = await start({ command: "echo hello" });
  await whole(id);
  for (const cursor of [3, 7]) expect(page(id, cursor)).rejects.toThrow("cursor");
  expect(page("proc_000000000000000000")).rejects.toThrow("absent");
});

test("a child that holds the output is logged after the end", async () => {
  const { id } = await start({ command: "(sleep 0.5; echo late) & echo early; exit 4" });
  const { out, end } = await whole(id);
  expect([out, end.process.exitCode]).toEqual(["early\n", 4]);
  while ((await page(id)).cursor < 11) await Bun.sleep(20);
  expect((await page(id)).entries.map(([, bytes]) => bytes.toString()).join("")).toBe("early\nlate\n");
});

const textOf = ({ entries }: Page) => Buffer.concat(entries.map(([, bytes]) => bytes)).toString();

/** On a volume of its own, which the next guest finds as this one has left it. */
async function withVolume(work: (place: string, another: () => Promise<void>) => Promise<void>): Promise<void> {
  const [before, place] = [guest, mkdtempSync(join(tmpdir(), "processes-"))];
  guest = await Guest.start({ GUEST_PROCESSES: place });
  try {
    await work(place, async () => {
      await guest.stop();
      guest = await Guest.start({ GUEST_PROCESSES: place });
    });
  } finally {
    await guest.stop();
    guest = before;
    rmSync(place, { recursive: true, force: true });
  }
}

test("output of a child after the end survives other logs and a new guest", () =>
  withVolume(async (_, another) => {
    const { id } = await start({ command: "(sleep 0.3; echo late) & echo early; exit 4" });
    expect(await whole(id)).toMatchObject({ out: "early\n", end: { cursor: 6, process: { exitCode: 4 } } });
    while ((await page(id)).cursor < 11) await Bun.sleep(20);
    const same = async () => {
      const [all, rest] = [await page(id), await page(id, 11)];
      expect([textOf(all), all.cursor, all.dropped]).toEqual(["early\nlate\n", 11, 0]);
      expect(rest).toMatchObject({ cursor: 11, dropped: 0, entries: [], last: true });
    };
    await same();
    for (let each = 0; each < 9; each++) expect((await whole((await start({ command: "echo x" })).id)).out).toBe("x\n");
    await same();
    await another();
    await same();
    expect(await get(id)).toMatchObject({ status: "exited", exitCode: 4 });
  }));

test("output of a child is there for the next guest", () =>
  withVolume(async (_, another) => {
    const { id, pid } = await start({ command: "(while sleep 0.02; do echo more; done) & echo early" });
    expect((await whole(id)).end.process).toMatchObject({ status: "exited" });
    while ((await page(id)).cursor < 6 + 5 * 5) await Bun.sleep(5);
    const seen = await page(id);
    await another();
    const rest = await page(id, seen.cursor);
    expect([rest.dropped, rest.last]).toEqual([0, true]);
    expect(textOf(await page(id))).toBe(textOf(seen) + textOf(rest));
    expect(await page(id, rest.cursor)).toMatchObject({ cursor: rest.cursor, entries: [], last: true });
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // it met the end of its pipe before
    }
  }));

test("a torn entry at the end of a log is neither shown nor counted", () =>
  withVolume(async (place, another) => {
    const { id } = await start({ command: "(sleep 0.3; echo late) & echo early" });
    while ((await page(id)).cursor < 11) await Bun.sleep(20);
    await another();
    const file = join(place, id, "0.log");
    const bytes = readFileSync(file);
    const record = JSON.parse(readFileSync(join(place, id, "record.json"), "utf8")) as Record<string, unknown>;
    for (const torn of [1, 5, 10]) {
      for (const output of [6, 11]) {
        writeFileSync(file, bytes.subarray(0, -torn));
        writeFileSync(join(place, id, "record.json"), JSON.stringify({ ...record, output }));
        await another();
        const all = await page(id);
        expect([textOf(all), all.cursor, all.dropped, all.last]).toEqual(["early\n", 6, 0, output === 6]);
        expect(await page(id, 6)).toMatchObject({ cursor: output, dropped: output - 6, entries: [], last: true });
      }
    }
  }));

test("a log goes on after its directory is removed, and counts what is gone", async () => {
  const { id } = await start({ command: "echo one; read; seq 1 100000; read; echo end", logBytes: 100_000 });
  while ((await page(id)).cursor < 4) await Bun.sleep(5);
  rmSync(root, { recursive: true });
  await guest.post("/processes/input", { id }, "\n");
  let cursor = 0;
  while (cursor < 588_899) ({ cursor } = await page(id, cursor));
  await guest.post("/processes/input", { id }, "\n");
  const { out, end } = await whole(id);
  expect(out.endsWith("99999\n100000\nend\n")).toBe(true);
  expect(end).toMatchObject({ cursor: 588_903, process: { status: "exited", exitCode: 0 } });
  expect(await get(id)).toMatchObject({ status: "exited" });
});

test("a damaged record or log affects only its process", async () => {
  const fine = await start({ command: "echo fine" });
  const bad = await start({ command: "echo bad; echo worse" });
  await Promise.all([whole(fine.id), whole(bad.id)]);
  for (const content of ["", "{", "[]", "null", '{"id": 3}', "x".repeat(1 << 20)]) {
    writeFileSync(join(root, bad.id, "record.json"), content);
    expect(await get(bad.id)).toMatchObject({ status: "lost", reason: "runtime_ended", command: "" });
  }
  writeFileSync(join(root, bad.id, "0.log"), "garbage of some length");
  await guest.get("/processes");
  expect((await page(bad.id)).last).toBe(true);
  expect((await whole(fine.id)).out).toBe("fine\n");
});

test("an impossible start is refused, and the spare is not lost", async () => {
  const body = JSON.stringify({ id: newId(), command: "a\0", cwd: "/", logBytes: 1, allLogBytes: 1 });
  expect(await failure(await guest.post("/processes/start", { spare: await guest.park() }, body))).toEqual([
    400,
    "EINVAL",
  ]);
  const gone = JSON.stringify({ id: newId(), command: "a", cwd: "/", logBytes: 1, allLogBytes: 1 });
  expect(await failure(await guest.post("/processes/start", { spare: 1 }, gone))).toEqual([409, "ESRCH"]);
});

test("all logs together are bounded, and those of ended processes go first", async () => {
  const sizes = { logBytes: 1 << 20, allLogBytes: 4 << 20 };
  const early = await start({ command: "head -c 900000 /dev/zero | tr '\\0' x", ...sizes });
  await whole(early.id);
  const others = [];
  for (let each = 0; each < 4; each++) others.push(await start({ command: "yes | head -c 3000000", ...sizes }));
  for (const { id } of others) await whole(id);
  const bytes = readdirSync(root).flatMap((id) =>
    readdirSync(join(root, id)).map((name) => readFileSync(join(root, id, name)).length),
  );
  expect(bytes.reduce((sum, size) => sum + size, 0)).toBeLessThan(5 << 20);
  expect((await page(early.id)).dropped).toBe(900_000);
  expect(await get(early.id)).toMatchObject({ exitCode: 0 });
});

test("a new guest on the volume knows what has ended, what is lost and why", async () => {
  const place = mkdtempSync(join(tmpdir(), "processes-"));
  const before = guest;
  guest = await Guest.start({ GUEST_PROCESSES: place });
  const done = await start({ command: "echo done; exit 5" });
  await whole(done.id);
  const crashed = await start({ command: "echo so far; sleep 100" });
  while ((await page(crashed.id)).cursor < 7) await Bun.sleep(5);
  await guest.stop();
  guest = await Guest.start({ GUEST_PROCESSES: place });
  expect(await get(done.id)).toMatchObject({ status: "exited", exitCode: 5 });
  expect(await get(crashed.id)).toMatchObject({ status: "lost", exitCode: null, reason: "runtime_ended" });
  expect(await whole(crashed.id)).toMatchObject({ out: "so far\n", end: { cursor: 7, last: true } });
  const gentle = await start({ command: "trap 'exit 6' TERM; while :; do sleep 0.05; done" });
  const stubborn = await start({ command: "trap '' TERM; sleep 100" });
  await Bun.sleep(300);
  await guest.post("/processes/ending", { reason: "deep_sleep" });
  for (const { pid } of [gentle, stubborn]) process.kill(-pid, "SIGTERM");
  expect((await whole(gentle.id)).end.process).toMatchObject({ exitCode: 6, reason: "deep_sleep" });
  await guest.post("/processes/settle");
  await guest.stop();
  guest = await Guest.start({ GUEST_PROCESSES: place });
  expect(await get(gentle.id)).toMatchObject({ status: "exited", exitCode: 6, reason: "deep_sleep" });
  expect(await get(stubborn.id)).toMatchObject({ status: "lost", reason: "deep_sleep" });
  for (const { pid } of [crashed, stubborn]) process.kill(-pid, "SIGKILL");
  await guest.stop();
  rmSync(place, { recursive: true });
  guest = before;
});

interface End {
  id: string;
  exitCode: number | null;
  reason: string | null;
}

/** The ends that the guest tells, until `enough` of them have come or it ends. */
async function ends(ids: string[], follow: number, enough = Infinity): Promise<End[]> {
  const leaving = new AbortController();
  const answer = await guest.post("/processes/ends", { follow }, JSON.stringify({ ids }), leaving.signal);
  expect(answer.status).toBe(200);
  const found: End[] = [];
  let bytes = Buffer.alloc(0);
  const reader = answer.body!.getReader();
  while (found.length < enough) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes = Buffer.concat([bytes, value]);
    const frames = framesOf(bytes);
    found.splice(0, found.length, ...frames.flatMap(([, payload]) => JSON.parse(payload.toString()) as End[]));
    expect(frames.every(([kind]) => kind === "d")).toBe(true);
  }
  leaving.abort();
  return found;
}

test("the ends of processes are told as they happen", async () => {
  const { id } = await start({ command: "sleep 100; :" });
  const told = ends([id], 1, 2);
  await Bun.sleep(50);
  const other = await start({ command: "exit 4" });
  await whole(other.id);
  await guest.post("/processes/signal", { id, number: 9 });
  expect(await told).toEqual([
    { id: other.id, exitCode: 4, reason: null },
    { id, exitCode: 137, reason: null },
  ]);
});

test("ends from before are told at once, and those that run are not", async () => {
  const [runs, late] = [
    await start({ command: "sleep 100; :" }),
    await start({ command: "sleep 100; :", timeout: 0.1 }),
  ];
  await whole(late.id);
  const unknown = `proc_${"0".repeat(18)}`;
  expect(await ends([late.id, runs.id, unknown, "nonsense"], 0)).toEqual([
    { id: late.id, exitCode: 124, reason: "timeout" },
    { id: unknown, exitCode: null, reason: null },
    { id: "nonsense", exitCode: null, reason: null },
  ]);
  expect(await ends([late.id], 1, 1)).toHaveLength(1);
  expect(await ends([], 0)).toEqual([]);
  await guest.post("/processes/signal", { id: runs.id, number: 9 });
});

test("many that end together are told once each", async () => {
  const all = await Promise.all(Array.from({ length: 20 }, () => start({ command: "read x; exit 3" })));
  const told = ends(
    all.map(({ id }) => id),
    1,
    all.length,
  );
  await Promise.all(all.map(({ id }) => guest.post("/processes/input", { id, close: 1 }, "")));
  expect((await told).map(({ id, exitCode }) => [id, exitCode]).toSorted()).toEqual(
    all.map(({ id }) => [id, 3]).toSorted(),
  );
});

test("nobody is told any more after the host has left", async () => {
  const first = await start({ command: "exit 0" });
  await ends([first.id], 1, 1);
  await whole((await start({ command: "exit 0" })).id); // ends without a listener
  const answer = await guest.post("/processes/ends", {}, '{"ids": 3}');
  expect((await failure(answer))[1]).toBe("EINVAL");
});

test("a process that starts after deep sleep was given up ends for no reason of its", async () => {
  const before = await start({ command: "read x; exit 3" });
  await guest.post("/processes/ending", { reason: "deep_sleep" });
  const after = await start({ command: "exit 4" });
  await whole(after.id);
  await guest.post("/processes/input", { id: before.id, close: 1 }, "");
  await whole(before.id);
  expect(await ends([before.id, after.id], 0)).toEqual([
    { id: before.id, exitCode: 3, reason: "deep_sleep" },
    { id: after.id, exitCode: 4, reason: null },
  ]);
});
