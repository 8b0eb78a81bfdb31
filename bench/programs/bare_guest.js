/** A guest of the bare chain (`bench/bare_chain.py`): answers each letter with a byte. It prints its port.
 *
 *     q  at once
 *     t  when a shell that waited has become `bash -c true` and ended
 *     c  when a Bun that had started has run `console.log(1)` and ended, and its output is read
 *     p  when both wait again; they are started only then
 */
const HOLD = "read -r x <&0 || exit; exec bash -c true";
const LINE = 'require("fs").writeSync(2,"r");require("fs").readSync(0,new Uint8Array(1));console.log(1)';

let shell = null;
let bun = null;

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
}

const server = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open: (socket) => void socket.setNoDelay(true),
    data: (socket, chunk) => void answer(String.fromCharCode(chunk[0])).then(() => socket.write("k")),
    close: () => process.exit(),
  },
});
console.log(server.port);
