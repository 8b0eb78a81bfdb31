/** The fake's services, as users' tests use them. */

import { expect, test } from "bun:test";
import { InvalidRequest, ServiceNotFound } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

const WEB = { name: "web", command: "bun server.ts", port: 8080, env: { A: "1" } };

test("declared services run and have a process", async () => {
  const session = await new FakeBuntime().sessions.create({
    services: [WEB, { name: "worker", command: "x", restart: "never" }],
  });
  const [web, worker] = await session.services.list();
  expect(web).toMatchObject({ name: "web", state: "running", port: 8080, restarts: 0, lastExit: null });
  expect((await session.processes.get(web!.processId!)).name).toBe("web");
  expect(await session.services.get("worker")).toEqual(worker!);
  const declared = [
    { name: "web", command: "bun server.ts", port: 8080, workingDir: "/workspace", envNames: ["A"], restart: "always" },
    { name: "worker", command: "x", port: null, workingDir: "/workspace", envNames: [], restart: "never" },
  ];
  expect(session.declaredServices).toEqual(declared as never);
  expect((await session.refresh()).declaredServices).toEqual(declared as never);
});

test("a stop lasts until a start or deep sleep", async () => {
  const session = await new FakeBuntime().sessions.create({ services: [WEB] });
  const before = await session.services.get("web");
  expect(await session.services.stop("web")).toMatchObject({ state: "stopped", pid: null });
  expect((await session.services.start("web")).processId).not.toBe(before.processId);
  await session.services.stop("web");
  await session.sleep("deep-sleep");
  expect((await session.services.get("web")).state).toBe("running");
  expect((await session.services.restart("web")).state).toBe("running");
});

test("an update starts and stops services", async () => {
  const session = await new FakeBuntime().sessions.create({ services: [WEB] });
  const before = await session.services.get("web");
  await session.update({ services: [{ name: "other", command: "x" }, WEB] });
  const [other, web] = await session.services.list();
  expect([other!.name, web]).toEqual(["other", before]);
  await session.update({ services: null });
  expect(await session.services.list()).toEqual([]);
  expect((await session.processes.list().all()).map(({ status }) => status)).toEqual(["exited", "exited"]);
});

test("a fork inherits them", async () => {
  const session = await new FakeBuntime().sessions.create({ services: [WEB] });
  const fork = await session.fork();
  expect(fork.declaredServices).toEqual(session.declaredServices);
  expect((await fork.services.list()).map(({ name }) => name)).toEqual(["web"]);
  expect((await session.fork({ services: [] })).declaredServices).toEqual([]);
});

test("what does not exist or is too much is refused", async () => {
  const session = await new FakeBuntime().sessions.create({ services: [WEB] });
  const { services } = session;
  for (const refused of [services.get("x"), services.start("x"), services.stop("x"), services.restart("x")])
    expect(await failureOf(refused)).toBeInstanceOf(ServiceNotFound);
  expect(await failureOf(session.update({ services: [WEB, WEB] }))).toBeInstanceOf(InvalidRequest);
});
