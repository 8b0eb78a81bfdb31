/** A guest of the bare chain (`bench/bare_chain.py`): answers each letter with a byte. It prints its port.
 *
 *     q  at once
 *     t  when a shell that waited has become `bash -c true` and ended
 *     c  when a Bun that had started has run `console.log(1)` and ended, and its output is read
 *     p  when both wait again; they are started only then
 *     e  when another Bun, which goes on, has evaluated `1+1`
 *     i  the same as a context must: it may be TypeScript, names would stay, and SIGINT could end it
 *
 * After `k`, the connection is a shell's terminal. After `s` and five digits, so many pieces of 64 KB come that a Bun
 * writes to a pipe, and then the connection ends.
 */
const HOLD = "read -r x <&0 || exit; exec bash -c true";
const LINE = 'require("fs").writeSync(2,"r");require("fs").readSync(0,new Uint8Array(1));console.log(1)';
const EVALUATE = `
const vm = require("vm");
const transpiler = new Bun.Transpiler({ loader: "tsx", target: "bun", replMode: true });
const plain = (code) => vm.runInThisContext(code);
const inContext = (code) => vm.runInThisContext(transpiler.transformSync(code), { breakOnSigint: true }).value;
Bun.connect({ unix: "\\0" + process.env.LINK, socket: {
  data(socket, asked) {
    const [letter, code] = [asked.toString("latin1", 0, 1), asked.toString("utf8", 1)];
    socket.write(String((letter === "i" ? inContext : plain)(code)));
  },
  close: () => process.exit(),
}});`;
const WRITE = `
const piece = Buffer.from(("~" + "x".repeat(62) + "\\n").repeat(1024));
for (let left = Number(process.env.PIECES); left > 0; left--)
  for (let at = 0; at < piece.length; ) at += require("fs").writeSync(1, piece, at);`;
const SHELL = ["bash", "--norc", "--noprofile", "-i"];
const ENV = { PATH: "/usr/bin:/bin", TERM: "xterm-256color", HOME: "/tmp" };

let shell = null;
let bun = null;
let evaluator = null;
let evaluated = null;

async function prepare() {
  shell ??= Bun.spawn(["sh", "-c", HOLD], { stdin: "pipe", stdout: "ignore", stderr: "ignore" });
  if (bun !== null) return;
  bun = Bun.spawn([process.execPath, "-e", LINE], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
  await bun.stderr.getReader().read(); // it has started
}

function go(child) {
  child.stdin.write("\n");
  child.stdin.flush();
}

function evaluatorStarted() {
  return new Promise((resolve) => {
    const link = `buntime-bare-${process.pid}`;
    const socket = { open: resolve, data: (_, value) => evaluated(value.toString()) };
    Bun.listen({ unix: `\0${link}`, socket });
    Bun.spawn([process.execPath, "--smol", "-e", EVALUATE], { env: { LINK: link } });
  });
}

async function answer(letter) {
  if (letter === "p") return prepare();
  if (letter === "t") {
    const child = shell;
    shell = null;
    go(child);
    await child.exited;
  }
  if (letter === "c") {
    const child = bun;
    bun = null;
    go(child);
    const [said] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    if (said !== "1\n") throw new Error(`it said ${said}`);
  }
  if (letter === "e" || letter === "i") {
    evaluator ??= await evaluatorStarted();
    const value = new Promise((resolve) => (evaluated = resolve));
    evaluator.write(`${letter}1+1`);
    if ((await value) !== "2") throw new Error(`it said ${await value}`);
  }
}

function terminal(socket) {
  const settings = { cols: 80, rows: 24, data: (_, shown) => void socket.write(shown) };
  const child = Bun.spawn(SHELL, { env: ENV, terminal: settings });
  socket.data = { take: (keys) => child.terminal.write(keys), close: () => child.kill("SIGKILL"), drain: () => {} };
}

async function stream(socket, pieces) {
  let wake = () => {};
  socket.data = { take: () => {}, close: () => {}, drain: () => wake() };
  const child = Bun.spawn([process.execPath, "-e", WRITE], { env: { PIECES: pieces }, stdout: "pipe" });
  for await (let piece of child.stdout)
    for (;;) {
      piece = piece.subarray(socket.write(piece));
      if (piece.length === 0) break;
      await new Promise((resolve) => (wake = resolve));
    }
  socket.end();
}

function take(socket, chunk) {
  const letter = String.fromCharCode(chunk[0]);
  if (socket.data !== undefined) socket.data.take(chunk);
  else if (letter === "k") terminal(socket);
  else if (letter === "s") void stream(socket, chunk.toString().slice(1));
  else void answer(letter).then(() => socket.write("k"));
}

const server = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open: (socket) => void socket.setNoDelay(true),
    data: take,
    drain: (socket) => socket.data?.drain(),
    close: (socket) => (socket.data === undefined ? process.exit() : socket.data.close()),
  },
});
console.log(server.port);
