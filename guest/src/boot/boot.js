// @bun @bun-cjs
/** Runs first in a prepared process (prepared.ts), waits for the code, and puts it where `bun -e` keeps its own.
 *
 * Bun was started with a placeholder as the argument of -e. It loads that text only after this file. Until then the
 * text lies in our memory, as bytes that an address and a length describe. The code replaces the placeholder and its
 * length. So what runs is `bun -e` with this code, and nothing of Bun is imitated. A Bun that stores the text
 * differently ends here, before it receives any code. Then there are no prepared processes, and everything else goes
 * on.
 *
 * The first line says that there is nothing to transpile. Otherwise Bun would do that at each start, and cache the
 * result in the session's own home (~/.bun/install/cache/@t@).
 *
 * This file is not bundled and imports nothing: node:fs sets up process.nextTick, which changes the order of
 * microtasks, and bun:ffi would appear in require.cache and change module.id. So it uses the native half of bun:ffi.
 */
(function (_exports, require, _module, __filename) {
  if (Bun.isMainThread) {
    const TAKEN = 7; // delivers one byte, which is read just before the code runs
    const READY = 8; // held open until everything has been found
    const TEXT = 9; // delivers the code
    const LARGEST = 8 << 20; // bytes of a mapping that can be Bun's own static memory
    const [BEFORE, BEHIND] = [4 << 20, 8 << 20]; // bytes around the text in which its address is stored
    // Where this Bun keeps it. Otherwise memory is searched. In static memory: the address of the length. On the heap: an
    // offset, the multiple it counts from, and how far away.
    const LIKELY_LENGTH = 0x686eda8;
    const [LIKELY, LIKELY_EVERY, LIKELY_AWAY] = [0xc48, 64 << 10, 2112 << 10];
    const PAGE = 4096;
    const [O_RDONLY, O_WRONLY, O_RDWR] = [0, 1, 2];
    const OOM = "/proc/self/oom_score_adj";
    const TURNS = 30; // of the microtask queue, in which Bun may record again that it has loaded this file

    const { dlopen, ptr } = Bun.FFI;
    const { symbols } = dlopen("libc.so.6", {
      open: { args: ["ptr", "i32"], returns: "i32" },
      read: { args: ["i32", "ptr", "u64"], returns: "i32" },
      write: { args: ["i32", "ptr", "u64"], returns: "i32" },
      pread64: { args: ["i32", "ptr", "u64", "u64"], returns: "i32" },
      pwrite64: { args: ["i32", "ptr", "u64", "u64"], returns: "i32" },
      close: { args: ["i32"], returns: "i32" },
    });
    const c = {
      open: (path, flags) => symbols.open(ptr(path), flags),
      read: (file, bytes, size) => symbols.read(file, ptr(bytes), size),
      write: (file, bytes, size) => symbols.write(file, ptr(bytes), size),
      pread: (file, bytes, size, at) => symbols.pread64(file, ptr(bytes), size, at),
      pwrite: (file, bytes, size, at) => symbols.pwrite64(file, ptr(bytes), size, at),
      close: (file) => symbols.close(file),
    };

    const checked = (result) => {
      if (result < 0) throw new Error("refused");
      return result;
    };
    const opened = (path, flags) => checked(c.open(Buffer.from(path + "\0"), flags));

    const window = Buffer.allocUnsafeSlow(16 << 10);

    /** What one read returns. Of /proc/self/maps that is a page: the program's own mappings and more. */
    const contentOf = (path) => {
      const file = opened(path, O_RDONLY);
      const size = checked(c.read(file, window, window.length));
      c.close(file);
      return window.toString("latin1", 0, size);
    };

    const write = (path, text) => {
      const file = opened(path, O_WRONLY);
      c.write(file, Buffer.from(text), text.length);
      c.close(file);
    };

    const memory = opened("/proc/self/mem", O_RDWR);

    const readable = (at, size) => {
      const bytes = Buffer.alloc(size);
      return c.pread(memory, bytes, size, at) === size ? bytes : null;
    };

    const put = (bytes, at) => {
      if (c.pwrite(memory, bytes, bytes.length, at) !== bytes.length) throw new Error("not written");
    };

    /** Finds a pattern in readable memory. `each` gets the addresses and returns true when it has enough. */
    const search = (from, to, pattern, each) => {
      const place = ptr(window);
      for (let at = from; at < to; at += window.length - 16) {
        const size = symbols.pread64(memory, place, Math.min(window.length, to - at), at);
        if (size <= 0) return false;
        const bytes = window.subarray(0, size);
        for (let hit = bytes.indexOf(pattern); hit >= 0; hit = bytes.indexOf(pattern, hit + 1))
          if (each(at + hit)) return true;
      }
      return false;
    };

    /** The ranges within the given one that are in use. Reading others would allocate memory. */
    const inUse = (from, to) => {
      const first = Math.floor(from / PAGE);
      const table = Buffer.alloc((Math.ceil(to / PAGE) - first) * 8);
      const pagemap = opened("/proc/self/pagemap", O_RDONLY);
      c.pread(pagemap, table, table.length, first * 8);
      c.close(pagemap);
      const ranges = [];
      for (let page = 0, start = -1; page <= table.length / 8; page++) {
        const used = page < table.length / 8 && table[page * 8 + 7] & 0xc0;
        if (used && start < 0) start = page;
        if (used || start < 0) continue;
        ranges.push([(first + start) * PAGE, (first + page) * PAGE]);
        start = -1;
      }
      return ranges;
    };

    const numberOf = (bytes) => bytes.readUInt32LE(0) + bytes.readUInt32LE(4) * 2 ** 32;
    const bytesOf = (number) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt32LE(number % 2 ** 32);
      bytes.writeUInt32LE(Math.floor(number / 2 ** 32), 4);
      return bytes;
    };

    /** Where the pair of address and length is stored if this Bun keeps it where it is expected.
     *
     * Calls of our own functions here would have them compiled, by threads that stay. All that takes 0.3 MB. */
    const likely = (text, pair) => {
      const [found, bytes] = [[], Buffer.alloc(pair.length)];
      const place = ptr(bytes);
      const first = text - LIKELY_AWAY - ((text - LIKELY_AWAY) % LIKELY_EVERY) + LIKELY;
      for (let at = first; at < text + LIKELY_AWAY; at += LIKELY_EVERY)
        if (symbols.pread64(memory, place, pair.length, at) === pair.length && bytes.equals(pair)) found.push(at);
      return found;
    };

    /** Where the text's address is stored on the heap around it. */
    const searched = (text) => {
      const candidates = [];
      for (const [from, to] of inUse(text - BEFORE, text + BEHIND))
        search(from, to, bytesOf(text), (at) => {
          candidates.push(at);
        });
      window.fill(0); // it held a copy of what was searched
      return candidates;
    };

    /** The address of the placeholder's text, and the addresses of its length. */
    const find = (placeholder) => {
      const size = placeholder.length;
      const length = bytesOf(size);
      const found = { text: 0, lengths: [] };
      const isDescribed = (at) => {
        const start = readable(at - 8, 8);
        const text = start === null ? 0 : numberOf(start);
        if (text < 1 << 16 || text >= 2 ** 47 || readable(text, size)?.toString("latin1") !== placeholder) return false;
        found.text = text;
        found.lengths.push(at);
        return true;
      };
      const searchAll = () => {
        for (const line of contentOf("/proc/self/maps").split("\n", 12)) {
          const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw-p/.exec(line) ?? [];
          const [start, end] = [parseInt(from, 16), parseInt(to, 16)];
          if (end - start <= LARGEST && search(start, end, length, isDescribed)) break;
        }
      };
      if (!readable(LIKELY_LENGTH, 8)?.equals(length) || !isDescribed(LIKELY_LENGTH)) searchAll();
      if (found.text === 0) throw new Error("no placeholder");
      const pair = Buffer.concat([bytesOf(found.text), length]);
      let heap = likely(found.text, pair);
      if (heap.length !== 1) heap = searched(found.text).filter((at) => readable(at, pair.length)?.equals(pair));
      // The one that Bun reads is on the heap. More than one would be something unknown.
      if (heap.length !== 1) throw new Error("another Bun");
      found.lengths.push(heap[0] + 8);
      return found;
    };

    /** Where the arguments that /proc shows are stored, and their length in bytes. */
    const argumentsAt = () => {
      const fields = contentOf("/proc/self/stat").split(") ").at(-1).split(" ");
      return { at: Number(fields[45]), size: Number(fields[46]) - Number(fields[45]) };
    };

    const prepare = () => {
      const placeholder = process.execArgv.at(-1);
      const options = process.execArgv.slice(0, -4); // --preload, this file, -e, the placeholder
      const place = find(placeholder);
      const visible = argumentsAt();
      const name = readable(visible.at, Math.min(visible.size, PAGE)).toString("latin1").split("\0", 1)[0];
      const adjusted = contentOf(OOM);
      // By then everything that every program needs is in memory.
      new Bun.Transpiler({ loader: "tsx" }).transformSync("const x: number = 1; console.log(x);");
      write(OOM, "1000"); // the kernel kills it first when memory is short
      return { ...place, size: placeholder.length, options, visible, name, adjusted };
    };

    let prepared;
    try {
      prepared = prepare();
      c.close(READY);
    } catch {
      process.exit(1);
    }

    const { text, lengths, size, options, visible, name, adjusted } = prepared;
    const room = Buffer.alloc(size);
    let length = 0;
    for (let count; (count = c.read(TEXT, room.subarray(length), size - length)) > 0;) length += count;
    if (length === 0) process.exit(1); // the guest is gone
    c.close(TEXT);
    const code = room.subarray(0, length);
    put(code, text);
    for (const at of lengths) put(bytesOf(length), at);
    const shown = Buffer.alloc(visible.size);
    Buffer.concat([Buffer.from([name, ...options, "-e", ""].join("\0"), "latin1"), code]).copy(shown);
    put(shown, visible.at);
    c.close(memory);
    write(OOM, adjusted);
    process.execArgv = [...options, "-e", code.toString("utf8")];
    // From here on the code may run. If this process ends before, the guest still finds the byte (prepared.ts).
    if (c.read(TAKEN, window, 1) !== 1) process.exit(1);
    c.close(TAKEN);
    const [file, cache] = [__filename, require.cache];
    const forget = (turns) => {
      delete cache[file];
      if (turns > 0) queueMicrotask(() => forget(turns - 1));
    };
    forget(TURNS);
  }
});
