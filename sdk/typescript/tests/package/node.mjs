// How `node:http` differs from `fetch`, in Node.
import { Agent, createServer } from "node:http";
import { Buntime } from "@buntime/sdk";

let runs = 0;
const server = createServer((request, response) => {
  request.resume();
  if (request.url !== "/execute") {
    response.writeHead(301, { Location: "http://elsewhere.invalid/", "Content-Type": "text/html" });
    return response.end("<html>Moved</html>");
  }
  runs += 1;
  const lost = { code: "EHOSTUNREACH", errno: -113, syscall: "read" };
  request.on("end", () => connection.destroy(Object.assign(new Error("read EHOSTUNREACH"), lost)));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const connect = Agent.prototype.createConnection;
let connection; // the client's side of the last connection
Agent.prototype.createConnection = function (...given) {
  connection = connect.apply(this, given);
  return connection;
};

const client = new Buntime({ baseUrl: `http://127.0.0.1:${server.address().port}`, retryDelay: 1 });
const session = client.sessions.open("s");
const lost = await session.executeCommand("pay").catch(({ code, begun }) => [code, begun]);
const moved = [];
for (const call of [() => session.refresh(), () => session.files.readBytes("a"), () => session.files.watch().next()])
  moved.push(await call().then(String, ({ code, status }) => [code, status]));
console.log(JSON.stringify({ lost, runs, moved }));
server.close();
server.closeAllConnections();
