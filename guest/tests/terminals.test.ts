import { afterAll, beforeAll, expect, test } from "bun:test";
import { failure, framesOf, Guest } from "./guest";
import type { Reply } from "./link";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

let number = 0;

/** One client, as the host is one. */
class Client {
  output = Buffer.alloc(0);
  taken = 0;
  end: { exitCode: number | null; reason: string | null } | "detached" | null = null;
  #send!: ReadableStreamDefaultController<Uint8Array>;
  #left = new AbortController();
  readonly name = `a${++number}`;

  constructor(readonly id: string) {}

  async attach(): Promise<this> {
    const answer = await guest.post("/terminals/attach", { id: this.id, attachment: this.name }, "", this.#left.signal);
    if (!answer.ok) throw new Error(await answer.text());
    void this.#read(answer);
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#send = controller) });
    void guest.post("/terminals/input", { id: this.id, attachment: this.name }, body).catch(() => {});
    return this;
  }

  leave(): void {
    this.#left.abort();
  }

  type(text: string | Uint8Array): void {
    this.#frame("i", Buffer.from(text as string));
  }

  resize(cols: number, rows: number): void {
    const size = Buffer.alloc(4);
    size.writeUInt16BE(cols);
    size.writeUInt16BE(rows, 2);
    this.#frame("r", size);
  }

  async until(happened: () => boolean): Promise<void> {
    for (let left = 2000; !happened(); left--) {
      if (left === 0) throw new Error(`it never came: ${JSON.stringify(this.output.toString())}`);
      await Bun.sleep(5);
    }
  }

  async sees(text: string): Promise<void> {
    await this.until(() => this.output.includes(text));
  }

  #frame(kind: string, payload: Buffer): void {
    const head = Buffer.alloc(5);
    head.write(kind);
    head.writeUInt32BE(payload.length, 1);
    this.#send.enqueue(Buffer.concat([head, payload]));
  }

  async #read(answer: Reply): Promise<void> {
    let rest = Buffer.alloc(0);
    try {
      for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
        rest = Buffer.concat([rest, chunk]);
        for (const [kind, payload] of framesOf(rest)) {
          rest = rest.subarray(5 + payload.length);
          if (kind === "o") this.output = Buffer.concat([this.output, payload]);
          else if (kind === "a") this.taken += payload.readUInt32BE();
          else if (kind === "x") this.end = JSON.parse(payload.toString());
          else this.end = "detached";
        }
      }
    } catch {
      // left
    }
  }
}

async function create(more: Record<string, unknown> = {}, id = `term_${++number}`): Promise<string> {
  const body = {
    id,
    cols: 80,
    rows: 24,
    cwd: guest.workspace,
    env: { PS1: "ready> ", HOME: guest.workspace },
    ...more,
  };
  const answer = await guest.post("/terminals/create", { spare: await guest.park() }, JSON.stringify(body));
  if (!answer.ok) throw new Error(await answer.text());
  return id;
}

async function opened(more: Record<string, unknown> = {}): Promise<Client> {
  const client = await new Client(await create(more)).attach();
  client.type("PS1='rea''dy> ' exec bash --noediting --norc -i\n");
  await client.sees("ready> ");
  client.type("stty -echo; PS1=; echo qui''et\n");
  await client.sees("quiet\r\n");
  return client;
}

test("a shell has the terminal as its own, with its size, environment and directory", async () => {
  const client = await opened({ cols: 91, rows: 33, env: { MINE: "yes", HOME: guest.workspace } });
  client.type("tty; stty size; echo $MINE $TERM $COLORTERM; pwd; test -t 0 -a -t 1 -a -t 2 && echo all; echo END\n");
  await client.sees("END\r\n");
  expect(client.output.toString()).toMatch(/\/dev\/pts\/\d+\r\n33 91\r\nyes xterm-256color truecolor\r\n/);
  expect(client.output.toString()).toContain(`${guest.workspace}\r\nall\r\n`);
  client.type("sleep 100 & jobs; ls -l /proc/self/fd | grep -c pipe; echo DONE\n");
  await client.sees("DONE\r\n");
  expect(client.output.toString()).not.toContain("no job control");
  client.type("kill %1; exit 7\n");
  await client.until(() => client.end !== null);
  expect(client.end).toEqual({ exitCode: 7, reason: null });
  expect(await failure(await guest.post("/terminals/attach", { id: client.id, attachment: "x" }))).toEqual([
    404,
    "ENOENT",
  ]);
});

test("Ctrl-Z stops", async () => {
  const client = await opened();
  client.type("cat\n");
  await Bun.sleep(100);
  client.type("\x1a");
  await client.sees("Stopped");
  client.type("kill -9 %1; exit\nexit\n");
  await client.until(() => client.end !== null);
});

test("Ctrl-C interrupts, and a new size is reported", async () => {
  const client = await opened();
  client.type("trap 'stty size' WINCH; sleep 1000\n");
  await Bun.sleep(50);
  client.type("\x03");
  client.resize(100, 40);
  client.type("stty size; echo END\n");
  await client.sees("40 100\r\nEND");
});

test("fast typing arrives completely", async () => {
  const client = await opened();
  const lines = Array.from({ length: 14_000 }, (_, at) => `${at} ${"x".repeat(66)}é`).join("\n") + "\n";
  client.type("cat > all; echo SAVED\n");
  await Bun.sleep(100);
  for (let at = 0; at < lines.length; at += 50_000) client.type(lines.slice(at, at + 50_000));
  client.type("\x04");
  await client.sees("SAVED\r\n");
  expect(await Bun.file(guest.at("all")).text()).toBe(lines);
  expect(client.taken).toBeGreaterThan(900_000);
});

test("a client that returns sees the screen again, and another one takes over", async () => {
  const first = await opened();
  first.type("echo one; printf '\\x1b[6n\\x1b[?1049h\\x1b[31mred'; echo\n");
  await first.sees("red");
  first.leave();
  const second = await new Client(first.id).attach();
  await second.sees("red");
  expect(second.output.toString()).toStartWith("\x1bc");
  expect(second.output.toString()).toContain("one\r\n\x1b[?1049h\x1b[31mred");
  const third = await new Client(first.id).attach();
  await second.until(() => second.end === "detached");
  second.type("echo from the second\n");
  third.type("echo from the third\n");
  await third.sees("from the third\r\n");
  expect(third.output.toString()).not.toContain("from the second");
});

test("a terminal goes on without clients, and waits for one that does not read", async () => {
  const client = await opened();
  client.type("sleep 0.2; head -c 3000000 /dev/zero | tr '\\0' x; echo; touch over\n");
  await Bun.sleep(50);
  client.leave();
  for (let left = 1000; left > 0 && !(await Bun.file(guest.at("over")).exists()); left--) await Bun.sleep(10);
  expect(await Bun.file(guest.at("over")).exists()).toBe(true);

  const lazy = await guest.post("/terminals/attach", { id: client.id, attachment: "lazy" });
  const command = Buffer.from("yes | head -c 50000000; touch too-far\n");
  const head = Buffer.from([0x69, 0, 0, 0, command.length]);
  const input = Buffer.concat([head, command]);
  void guest.post("/terminals/input", { id: client.id, attachment: "lazy" }, input).catch(() => {});
  await Bun.sleep(1500);
  expect(await Bun.file(guest.at("too-far")).exists()).toBe(false);
  expect(guest.memory).toBeLessThan(150_000);
  await lazy.body?.cancel();
});

test("all terminals end at once and say why", async () => {
  const [one, other] = [await opened(), await opened()];
  await guest.post("/terminals/end", { reason: "deep_sleep" });
  await one.until(() => one.end !== null && other.end !== null);
  expect(one.end).toEqual({ exitCode: null, reason: "deep_sleep" });
  await expect(new Client(one.id).attach()).rejects.toThrow();
});

test("invalid requests are refused", async () => {
  const spare = await guest.park();
  const good = { id: "t", cols: 80, rows: 24, cwd: guest.workspace };
  for (const bad of [{}, { cols: 0 }, { rows: "x" }, { cwd: "relative" }, { env: { a: 1 } }, { id: "" }].slice(1)) {
    const body = JSON.stringify({ ...good, ...bad });
    expect((await failure(await guest.post("/terminals/create", { spare }, body)))[0]).toBe(400);
  }
  const nowhere = JSON.stringify({ ...good, cwd: "/nowhere" });
  expect(await failure(await guest.post("/terminals/create", { spare }, nowhere))).toEqual([404, "ENOENT"]);
  expect((await failure(await guest.post("/terminals/create", { spare: 1 }, JSON.stringify(good))))[1]).toBe("ESRCH");
  expect(await failure(await guest.post("/terminals/input", { id: "no" }, "x"))).toEqual([404, "ENOENT"]);
});
