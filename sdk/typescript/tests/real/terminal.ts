import assert from "node:assert/strict";
import { Buntime, ConnectionFailed, SessionNotFound, TerminalNotFound, type Terminal } from "@buntime/sdk";

const client = new Buntime();
await using session = await client.sessions.create({ ttl: 600 });

async function until(terminal: Terminal, wanted: string): Promise<string> {
  let output = "";
  for await (const part of terminal) {
    output += new TextDecoder().decode(part);
    if (output.includes(wanted)) break;
  }
  return output;
}

await session.files.mkdir("app");
const terminal = await session.terminal({ cols: 100, rows: 30, workingDir: "app" });
assert.equal(terminal.resumed, false);
terminal.write("pwd; stty size; echo $((20+22))\n");
const output = await until(terminal, "42");
assert.ok(output.includes("/workspace/app") && output.includes("30 100"), output);
terminal.resize(120, 40);
terminal.write("stty size\n");
await until(terminal, "40 120"); // or the next connection may be quicker than the resize
terminal.close();

const again = await session.terminal({ terminalId: terminal.id });
assert.deepEqual([again.resumed, again.id], [true, terminal.id]);
again.write("stty size; exit 7\n");
let rest = "";
for await (const part of again) rest += new TextDecoder().decode(part);
assert.ok(rest.includes("40 120"), rest);
assert.deepEqual(await again.ended, { type: "exit", exitCode: 7, reason: null });
await assert.rejects(session.terminal({ terminalId: terminal.id }), TerminalNotFound);

const taken = await session.terminal();
const taker = await session.terminal({ terminalId: taken.id });
assert.deepEqual(await taken.ended, { type: "detached" });
taker.write(new Uint8Array(3 << 20)); // more than a message may have
await assert.rejects(taker.ended, ConnectionFailed);
await assert.rejects(client.sessions.open("ses_abc123def456ghi789").terminal(), SessionNotFound);
console.log("done");
