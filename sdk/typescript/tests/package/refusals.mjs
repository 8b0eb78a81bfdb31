// What is refused before a request, or asked once, in Bun and in Node.
import { Buntime } from "@buntime/sdk";

const client = new Buntime({ retryDelay: 1 });
const session = await client.sessions.create({ metadata: { user: "u1" } });
const told = ({ name, message }) => `${name}: ${message}`;
const late = await session.fetch("/slow", { timeout: 200 }).catch(told);
const object = await session.fetch("/slow", { method: "POST", body: { a: 1 } }).catch(told);
const number = await session.execute("never", { timeout: NaN }).catch(told);
const signal = await session.execute("never", { signal: "x" }).catch(told);
const { size } = await session.files.write("a", new ArrayBuffer(3));
let option;
try {
  new Buntime({ apikey: "btk_a" });
} catch (error) {
  option = told(error);
}
console.log(JSON.stringify({ late, object, number, signal, size, option, metadata: session.metadata }));
