/** The latest output of a terminal, kept so that a client that comes back gets its screen again. Pure.
 *
 * What is kept begins between two sequences, never inside one or inside a character. Modes that older output set are
 * remembered: the alternate screen, the mouse, bracketed paste, colours. A replay leaves out questions to the terminal
 * ("where is the cursor?"), because the answers would arrive as if the user had typed them.
 */

const MOST = 256 << 10; // bytes that are held; half of them go when the limit is reached
const LONGEST = 4 << 10; // bytes of one sequence; anything longer is not one
const COLOURS = 16; // the latest changes of colour that are kept

const ESC = 0x1b;
const BEL = 0x07;
const ENQ = 0x05;
const ALTERNATE = [47, 1047, 1049];

/** Where the token at `at` ends, or -1 when its end has not arrived. */
function tokenEnd(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  if (first !== ESC) return first < 0xc0 ? at + 1 : characterEnd(bytes, at);
  const second = bytes[at + 1];
  if (second === undefined) return -1;
  if (second === 0x5b) return finalAfter(bytes, at + 2); // [
  if ("]P_^X".includes(String.fromCharCode(second))) return stringEnd(bytes, at + 2);
  let end = at + 1;
  while (bytes[end]! >= 0x20 && bytes[end]! <= 0x2f) end++;
  return end < bytes.length ? end + 1 : -1;
}

function characterEnd(bytes: Uint8Array, at: number): number {
  const size = bytes[at]! >= 0xf0 ? 4 : bytes[at]! >= 0xe0 ? 3 : 2;
  let end = at + 1;
  while (end < at + size && bytes[end]! >= 0x80 && bytes[end]! < 0xc0) end++;
  return end === bytes.length && end < at + size ? -1 : end;
}

function finalAfter(bytes: Uint8Array, from: number): number {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]!;
    if (byte >= 0x40 && byte <= 0x7e) return at + 1;
    if (byte < 0x20 || byte > 0x7e || at - from > LONGEST) return at;
  }
  return -1;
}

function stringEnd(bytes: Uint8Array, from: number): number {
  for (let at = from; at < bytes.length; at++) {
    if (bytes[at] === BEL || bytes[at] === 0x9c) return at + 1;
    if (bytes[at] === ESC) return at + 1 < bytes.length ? at + (bytes[at + 1] === 0x5c ? 2 : 0) : -1;
    if (at - from > LONGEST) return at;
  }
  return -1;
}

const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

/** The modes that are switched on and off. */
class Modes {
  private constructor(
    readonly switched: Map<number, boolean>,
    private colours: string[],
    private keypad: string,
  ) {}

  static none(): Modes {
    return new Modes(new Map(), [], "");
  }

  copy(): Modes {
    return new Modes(new Map(this.switched), [...this.colours], this.keypad);
  }

  get alternate(): boolean {
    return ALTERNATE.some((mode) => this.switched.get(mode) === true);
  }

  /** Applies the bytes up to the first place after `least` that is between two tokens. Returns that place. */
  absorb(bytes: Uint8Array, least = bytes.length): number {
    let at = 0;
    while (at < least) {
      const escape = bytes[at] === ESC;
      let end = tokenEnd(bytes, at);
      if (end < 0) end = bytes.length;
      if (escape) this.#follow(textOf(bytes.subarray(at + 1, end)));
      at = end;
    }
    return at;
  }

  /** The output that brings a reset terminal into this state. */
  toString(): string {
    const on = [...this.switched].sort(([a], [b]) => Number(ALTERNATE.includes(b)) - Number(ALTERNATE.includes(a)));
    return on.map(([mode, is]) => `\x1b[?${mode}${is ? "h" : "l"}`).join("") + this.keypad + this.colours.join("");
  }

  #follow(sequence: string): void {
    const modes = /^\[\?([\d;]+)([hl])$/.exec(sequence);
    if (modes !== null) {
      for (const mode of modes[1]!.split(";").slice(0, 32)) this.#switch(Number(mode), modes[2] === "h");
    } else if (/^\[[\d;:]*m$/.test(sequence)) {
      if (/^\[0*(;|m)/.test(sequence)) this.colours = [];
      this.colours = [...this.colours, `\x1b${sequence}`].slice(-COLOURS);
    } else if (sequence === "=" || sequence === ">") {
      this.keypad = `\x1b${sequence}`;
    } else if (sequence === "c" || sequence === "[!p") {
      this.switched.clear();
      this.colours = [];
      this.keypad = "";
    }
  }

  #switch(mode: number, on: boolean): void {
    if (this.switched.size < 64 || this.switched.has(mode)) this.switched.set(mode, on);
  }
}

/** Whether a terminal would answer this sequence. */
function asks(sequence: string): boolean {
  return (
    /^\[[?>=]?[\d;]*[cn]$/.test(sequence) ||
    /^\[\??[\d;]*\$p$/.test(sequence) ||
    /^\[>[\d;]*q$/.test(sequence) ||
    /^\[\?u$/.test(sequence) ||
    /^\[(1[1-9]|2[01])(;\d*)*t$/.test(sequence) ||
    /^\[\d*x$/.test(sequence) ||
    /^P[$+]q/.test(sequence) ||
    /^\][\d;a-z]*;\?/.test(sequence) ||
    sequence === "Z"
  );
}

export class Screen {
  #bytes = new Uint8Array(4 << 10);
  #size = 0;
  readonly #gone = Modes.none();

  take(chunk: Uint8Array): void {
    if (this.#size + chunk.length > MOST) this.#forget();
    if (this.#size + chunk.length > this.#bytes.length) this.#grow(this.#size + chunk.length);
    this.#bytes.set(chunk, this.#size);
    this.#size += chunk.length;
  }

  /** Whether a program uses the alternate screen. */
  get alternate(): boolean {
    const now = this.#gone.copy();
    now.absorb(this.#held);
    return now.alternate;
  }

  /** Everything that is held, for the first client. */
  beginning(): Uint8Array {
    return this.#held.slice();
  }

  /** A reset, and the output that restores the screen. */
  replay(): Uint8Array {
    const parts = [Buffer.from(`\x1bc${this.#gone}`)];
    const held = this.#held;
    let from = 0;
    for (let at = 0; at < held.length;) {
      const end = tokenEnd(held, at);
      if (end < 0) break;
      if (isLeftOut(held, at, end)) {
        parts.push(Buffer.from(held.subarray(from, at)));
        from = end;
      }
      at = end;
    }
    parts.push(Buffer.from(held.subarray(from)));
    return Buffer.concat(parts);
  }

  get #held(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }

  #forget(): void {
    const cut = this.#gone.absorb(this.#held, this.#size - MOST / 2);
    this.#bytes.copyWithin(0, cut, this.#size);
    this.#size -= cut;
  }

  #grow(least: number): void {
    const larger = new Uint8Array(Math.max(least, this.#bytes.length * 2));
    larger.set(this.#held);
    this.#bytes = larger;
  }
}

function isLeftOut(bytes: Uint8Array, at: number, end: number): boolean {
  if (end - at === 1) return bytes[at] === BEL || bytes[at] === ENQ;
  return bytes[at] === ESC && asks(textOf(bytes.subarray(at + 1, end)));
}
