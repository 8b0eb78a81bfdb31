/** Prepared processes: each a Bun that has started and waits for the code of one run (boot/boot.js).
 *
 *     POST /spares/prepare?spare=   {env, cwd} → {}   it has become a prepared Bun that waits for code
 *     POST /prepared/run?spare=     as /run           in a prepared Bun; ESTALE when it does not fit. The last frame has
 *                                                     "started": false when the process ended before the code ran
 *     POST /rehearsal               → {}, after runs of nothing in shells of their own, as by /run and as in a prepared
 *                                   Bun. The first real run is then as fast as later ones: everything is compiled
 *
 * Bun reads its surroundings when it starts: the environment, settings, and names in the working directory and above.
 * The code of a run goes to a prepared Bun only when all of that is unchanged. Otherwise the run starts like any other.
 * A process may be killed just as it is handed the code. `Token` tells whether the code may have run.
 */

import { closeSync, existsSync, openSync, readFileSync, realpathSync, statSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Clock } from "./changes";
import { Failure, errnoOf } from "./failure";
import { available, makeNonBlocking } from "./libc";
import { PipeWriter } from "./pipes";
import { execute, parseRun, rehearseRun, type RunRequest } from "./run";
import { codeOf, NOTHING, STDIN, startOf, TEXT } from "./script";
import { json } from "./answer";
import { numberIn, type Handlers, type Settings } from "./asked";
import type { Spare, Spares } from "./spares";
import { forgetWork } from "./thrift";

const LONGEST_CODE = 16 << 10; // bytes that have room in the placeholder
const PLACEHOLDER = "//" + "waiting ".repeat(LONGEST_CODE / 8) + "\n"; // a length that nothing else in memory has
/** Its descriptors (see boot.js), none of which Bun itself takes next. */
const [TAKEN, READY, CODE] = [7, 8, 9];
const LARGEST_ENV = 64 << 10; // bytes
const PATIENCE = 5000; // ms for a prepared process to start
const LOOK = 3; // ms between looks whether it has
const JUST_NOW = 20; // ms: on old kernels, a change within this time may leave the time stamp as it is
/** Files that Bun reads as it starts, in the working directory or above. */
const SETTINGS = [
  ...["", ".local", ".development", ".development.local", ".production", ".production.local"].map((of) => `.env${of}`),
  ...[".env.test", ".env.test.local", "bunfig.toml", "tsconfig.json", "jsconfig.json", "package.json", ".npmrc"],
  ...["bun.lock", "bun.lockb", "node_modules"],
];
const OF_THE_SYSTEM = ["/etc/localtime", "/etc/resolv.conf", "/etc/hosts"];
const OF_THE_IMAGE = /^\/(?:etc|usr)\//;
const OF_A_HOME = [".bunfig.toml", ".npmrc"];
const FILES_NAMED = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"];
/** Settings that make Bun read or run more than is checked here. */
const ODD_VARIABLES = /^(?:BUN_|NODE_OPTIONS$|LD_|MALLOC|MIMALLOC)/;
const ODD_SETTINGS = /preload|tsconfig|extends|env/;

interface RunEnvironment {
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** One byte for a prepared process, which reads it when nothing is left to do but to run the code.
 *
 * Only the process itself reads it, and a killed one gets no further. So the code has not run before the byte is in the
 * pipe, nor while it is there.
 * That the code was read says less: a process that is being killed may still read what it was waiting for.
 */
class Token {
  #fd: number;
  #isGiven = false;
  #isTaken = false;

  /** `fd`: the writing end of an empty pipe, which then belongs to the token. */
  constructor(fd: number) {
    this.#fd = fd;
    makeNonBlocking(fd); // a session may have filled the pipe
  }

  give(): void {
    if (this.#fd < 0) return;
    this.#isGiven = true;
    try {
      writeSync(this.#fd, "1");
    } catch (thrown) {
      if (errnoOf(thrown) === "EPIPE")
        this.#isGiven = false; // the process has ended
      else if (errnoOf(thrown) !== "EAGAIN") throw thrown; // the session has filled the pipe, so nothing is certain
    }
  }

  get isTaken(): boolean {
    if (this.#fd >= 0 && this.#isGiven) this.#isTaken ||= available(this.#fd) !== 1;
    return this.#isTaken;
  }

  /** Keeps whether it was taken. A process that has not been given it ends. */
  close(): void {
    if (this.#fd < 0) return;
    void this.isTaken;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

interface Prepared {
  readonly spare: Spare;
  readonly token: Token;
  /** Environment and directory. */
  readonly environment: string;
  /** The files it may have read when it started, and their stamps. */
  readonly seen: ReadonlyMap<string, string>;
}

const nameOf = ({ env, cwd }: RunEnvironment) => JSON.stringify([cwd, Object.entries(env)]);

/** A text that differs after any change of the file or directory, or the errno when it cannot be read. */
function stampOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stats === undefined) return "";
    // Images that are made of one base link its files. Each new link changes the ctime of the file, and nothing else.
    const linked = stats.nlink > 1n && OF_THE_IMAGE.test(path);
    // On overlayfs, the first write below a directory of the image changes the parent but none of its names.
    const more = path === "/" ? "" : `${stats.size} ${linked ? "" : stats.ctimeNs}`;
    return `${stats.dev} ${stats.ino} ${stats.mtimeNs} ${more}`;
  } catch (thrown) {
    return (thrown as { code?: string }).code ?? "?";
  }
}

function above(directory: string): string[] {
  return directory === "/" ? ["/"] : [...above(dirname(directory)), directory];
}

function isOdd(path: string): boolean {
  if (!/(?:bunfig\.toml|[tj]sconfig\.json)$/.test(path)) return false;
  try {
    return ODD_SETTINGS.test(readFileSync(path, "utf8"));
  } catch {
    return true;
  }
}

/** Stamps of all that Bun reads, or null when a prepared process would differ. A new file changes its directory. */
function surroundings({ env, cwd }: RunEnvironment, bun: string): Map<string, string> | null {
  try {
    if (realpathSync(cwd) !== cwd) return null;
  } catch {
    return null;
  }
  if (Object.keys(env).some((name) => ODD_VARIABLES.test(name))) return null;
  if (Buffer.byteLength(nameOf({ env, cwd })) > LARGEST_ENV) return null;
  const directories = above(cwd);
  const settings = directories.flatMap((directory) => SETTINGS.map((name) => join(directory, name)));
  const there = settings.filter((path) => existsSync(path));
  const homes = [env.HOME ?? "/root", env.XDG_CONFIG_HOME].filter((home) => home !== undefined);
  const named = FILES_NAMED.map((name) => env[name]).filter((path) => path !== undefined);
  const apart = [
    ...OF_THE_SYSTEM,
    ...named,
    ...homes.flatMap((home) => OF_A_HOME.map((name) => join(home, name))),
    bun,
  ];
  if ([...there, ...apart].some((path) => existsSync(path) && isOdd(path))) return null;
  return new Map([...directories, ...there, ...apart].map((path) => [path, stampOf(path)]));
}

/** Whether it has started completely (see boot.js). */
const isReady = (pid: number) => existsSync(`/proc/${pid}/fd/${CODE}`) && !existsSync(`/proc/${pid}/fd/${READY}`);

const changedAt = (path: string) => Number(statSync(path, { throwIfNoEntry: false })?.ctimeMs ?? 0);

class PreparedProcesses {
  readonly #waiting = new Map<number, Prepared>();

  constructor(
    private readonly bun: string,
    private readonly boot: string,
  ) {}

  /** Turns a spare into a prepared process, and settles when it has started. Raises ESRCH, and ESTALE when it would
   * differ from a fresh start: the spare then stays parked. Raises ESTALE, too, when it does not start. */
  async prepare(spares: Spares, pid: number, environment: RunEnvironment): Promise<void> {
    let seen = surroundings(environment, this.bun);
    if (seen !== null && above(environment.cwd).some((path) => Date.now() - changedAt(path) < JUST_NOW)) {
      await Bun.sleep(JUST_NOW);
      seen = surroundings(environment, this.bun);
    }
    if (seen === null) throw new Failure("ESTALE", { message: "no process can be prepared for this" });
    const argv = [this.bun, "--install=fallback", "--preload", this.boot, "-e", PLACEHOLDER];
    const moved = `${TAKEN}<&${STDIN} ${READY}<&${STDIN} ${CODE}<&${TEXT}`;
    const script = startOf(argv, environment, NOTHING, [], moved);
    const spare = this.#wait(spares, pid, environment, seen);
    new PipeWriter(spare.script, Buffer.from(script));
    for (const deadline = Date.now() + PATIENCE; !isReady(pid); await Bun.sleep(LOOK))
      if (Date.now() > deadline || !this.#waiting.has(pid))
        throw new Failure("ESTALE", { message: "the process does not start" });
  }

  /** Hands the code to a shell that ends without running it. Null when nothing can be prepared. */
  rehearse(spares: Spares, environment: RunEnvironment, code: string): Prepared | null {
    const seen = surroundings(environment, this.bun);
    if (seen === null) return null;
    const spare = this.#wait(spares, spares.park(), environment, seen);
    new PipeWriter(spare.script, Buffer.from("exit\n"));
    try {
      return this.take(spare.pid, environment, code);
    } catch {
      return null; // a file has changed just now
    }
  }

  /** Takes the spare, which waits from now on, and returns it. Raises ESRCH. */
  #wait(spares: Spares, pid: number, environment: RunEnvironment, seen: ReadonlyMap<string, string>): Spare {
    const [noScript, noInput] = [openSync("/dev/null", "w"), openSync("/dev/null", "w")]; // for ends in use already
    const spare = this.#taken(spares, pid, [noScript, noInput]);
    const token = new Token(spare.stdin);
    const usable = { ...spare, script: noScript, stdin: noInput };
    this.#waiting.set(pid, { spare: usable, token, environment: nameOf(environment), seen });
    void spare.exited.then(() => {
      token.close();
      if (this.#waiting.delete(pid))
        [noScript, noInput, spare.text, spare.stdout, spare.stderr].forEach((end) => closeSync(end));
    });
    return spare;
  }

  #taken(spares: Spares, pid: number, opened: readonly number[]): Spare {
    try {
      return spares.take(pid);
    } catch (thrown) {
      opened.forEach((end) => closeSync(end));
      throw thrown;
    }
  }

  /** Hands the code to the process. It runs when the caller gives it the token.
   *
   * Raises ESTALE when the process does not fit or has ended. It does not run the code then. */
  take(pid: number, environment: RunEnvironment, code: string): Prepared {
    const prepared = this.#waiting.get(pid);
    if (prepared === undefined) throw new Failure("ESTALE", { message: "there is no such process" });
    if (Buffer.byteLength(code) > LONGEST_CODE || nameOf(environment) !== prepared.environment)
      throw new Failure("ESTALE", { message: "it is for another run" });
    this.#waiting.delete(pid);
    const { spare, token, seen } = prepared;
    // It wakes and puts the code in its place while we look whether it still equals a fresh start.
    const text = new PipeWriter(spare.text, Buffer.from(code));
    const changed = [...seen].find(([path, stamp]) => stampOf(path) !== stamp);
    if (changed === undefined) return prepared;
    token.close();
    text.close();
    [spare.script, spare.stdin, spare.stdout, spare.stderr].forEach((end) => closeSync(end));
    throw new Failure("ESTALE", { message: "it does not fit any more", path: changed[0] });
  }
}

/** `clock`: the one that runs use. */
export function preparedHandlers(settings: Settings, spares: Spares, clock: Clock): Handlers {
  const { bun, boot, workspace } = settings;
  const processes = new PreparedProcesses(bun, boot);
  return {
    "POST /spares/prepare": async (asked) => {
      const environment = environmentOf(await asked.json(), workspace);
      await processes.prepare(spares, numberIn(asked, "spare", -1), environment);
      return json({});
    },
    "POST /prepared/run": async (asked) => {
      const body = await asked.json();
      const { code, request: run } = preparedRun(body, workspace);
      const { spare, token } = processes.take(numberIn(asked, "spare", -1), run, code);
      return execute(spare, run, clock.mark(), workspace, asked.gone, { go: token });
    },
    "POST /rehearsal": async () => {
      await rehearseRun(settings, spares, clock);
      const { code, request: run } = preparedRun({ code: "" }, workspace);
      const ready = processes.rehearse(spares, run, code);
      const nobody = new AbortController().signal;
      if (ready !== null) await execute(ready.spare, run, clock.mark(), workspace, nobody, { go: ready.token });
      forgetWork();
      return json({});
    },
  };
}

/** The body of POST /prepared/run, checked like that of /run. It must be code without input. */
function preparedRun(body: unknown, workspace: string): { code: string; request: RunRequest } {
  const request = parseRun(body, workspace);
  if (request.code === null || request.stdin.length > 0 || request.feed !== "")
    throw new Failure("ESTALE", { message: "it is started in another way" });
  return { code: codeOf(request.code), request };
}

/** Raises EINVAL. */
function environmentOf(body: unknown, workspace: string): RunEnvironment {
  const { env = {}, cwd = workspace } = (body ?? {}) as { env?: unknown; cwd?: unknown };
  const isEnv =
    typeof env === "object" && env !== null && Object.values(env).every((value) => typeof value === "string");
  if (!isEnv || typeof cwd !== "string" || !cwd.startsWith("/") || cwd.includes("\0"))
    throw new Failure("EINVAL", { message: "env or cwd has the wrong form" });
  return { env: env as Record<string, string>, cwd };
}
