/** A shell that stays in the cgroup of a service and starts its program as often as it is told.
 *
 * The guest cannot start anything in a cgroup of the host's, but a process in it can. So the spare of a service becomes
 * no program: it forks one, waits for it, tells how it ended, and reads on. It dies last, at the end of its scripts.
 */

import { closeSync, constants, openSync } from "node:fs";
import { Input } from "./input";
import { PipeReader } from "./pipes";
import type { Attended } from "./processes";
import { NOTHING, startOf, STDIN, TEXT } from "./script";

const TOLD = 6; // its descriptor for what it tells the guest
const LONGEST = 64; // bytes of a line that it tells; what is longer comes from the session and is left out
const PIDS = 1 << 22;

/** SIGTERM is for the program: the shell goes on until that has ended. A subshell has no traps. */
const PREPARE = `trap : TERM INT HUP; exec ${TOLD}>/proc/self/fd/${TEXT} ${STDIN}<&- ${TEXT}<&-\n`;

export interface Told {
  begun(pid: number): void;
  ended(exitCode: number): void;
}

export class Attendant {
  readonly #input: Input;
  readonly #reader: PipeReader;
  #line = "";
  #isLong = false;

  constructor(
    private readonly attended: Attended,
    private readonly told: Told,
  ) {
    this.#input = new Input(attended.script);
    // the pipe for text, the other way round; our writing end keeps it from ending before the shell has opened it
    const tells = openSync(`/proc/self/fd/${attended.text}`, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#reader = new PipeReader(tells, {
      headroom: 0,
      wants: true,
      take: (chunk) => this.#take(chunk),
    });
    this.#input.send(Buffer.from(PREPARE), false);
  }

  /** Starts the program once. */
  run(program: string): void {
    const begin = `read -r p q </proc/self/stat; echo "p $p" >&${TOLD}`;
    this.#input.send(Buffer.from(`(\n${begin}\n${program})\necho "e $?" >&${TOLD}\n`), false);
  }

  /** Lets the shell end with this exit code, once its program has ended. */
  end(exitCode: number): void {
    this.#input.send(Buffer.from(`exit ${exitCode}\n`), true);
  }

  /** The shell has ended. Takes what it told before. */
  close(): void {
    this.#reader.drain();
    this.#input.close();
    closeSync(this.attended.text);
    this.#reader.drop();
  }

  /** Any program of the session can write here too. */
  #take(chunk: Uint8Array): void {
    for (const character of Buffer.from(chunk).toString("latin1")) {
      if (character !== "\n") {
        if (this.#line.length < LONGEST) this.#line += character;
        else this.#isLong = true;
        continue;
      }
      if (!this.#isLong) this.#heed(this.#line);
      [this.#line, this.#isLong] = ["", false];
    }
  }

  #heed(line: string): void {
    const [, kind, digits] = /^([pe]) (\d{1,7})$/.exec(line) ?? [];
    const number = Number(digits);
    if (kind === "p" && number > 0 && number < PIDS) this.told.begun(number);
    if (kind === "e" && number < 256) this.told.ended(number);
  }
}

/** What `run` takes: enters the directory, sets the environment, becomes the command. Raises EINVAL and E2BIG. */
export function programOf(
  command: string,
  shell: string | null,
  env: Readonly<Record<string, string>>,
  cwd: string,
): string {
  const argv = shell === null ? [] : [shell, "-c", command];
  return startOf(argv, { env, cwd }, NOTHING, [], `${TOLD}>&-`);
}
