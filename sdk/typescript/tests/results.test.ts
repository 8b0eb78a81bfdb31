import { expect, test } from "bun:test";
import { BuntimeError, ExecutionFailed, ExecutionResult, InvalidRequest } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { ENDED, failureOf } from "./stand_in";

const result = (more: object) => new ExecutionResult({ stdout: "", stderr: "", ...ENDED, ...more });

test("a result is ok only with exit code 0 in time", () => {
  expect([{}, { exitCode: 1 }, { timedOut: true, exitCode: 124 }].map((more) => result(more).ok)).toEqual([
    true,
    false,
    false,
  ]);
});

test("check returns the result, or throws with the end of the output", () => {
  const good = result({ stdout: "1" });
  expect(good.check()).toBe(good);
  const bad = result({ exitCode: 3, stdout: `${"x".repeat(5000)}last line`, stderr: "problem\n" });
  try {
    bad.check();
    expect.unreachable();
  } catch (failure) {
    expect(failure).toBeInstanceOf(ExecutionFailed);
    expect(failure).toBeInstanceOf(BuntimeError);
    const { name, code, message, result, details } = failure as ExecutionFailed;
    expect([name, code, details]).toEqual(["ExecutionFailed", "execution_failed", { exitCode: 3 }]);
    expect(result).toBe(bad);
    for (const part of ["exited with code 3", "problem", "last line"]) expect(message).toContain(part);
    expect(message.length).toBeLessThan(2500);
  }
  expect(() => result({ timedOut: true, exitCode: 124 }).check()).toThrow("ran out of time");
});

test("a result can be taken apart and shown as JSON", () => {
  const { ok, stdout } = result({ stdout: "1" });
  expect([ok, stdout]).toEqual([true, "1"]);
  expect(JSON.parse(JSON.stringify(result({ stdout: "1" })))).toEqual({ stdout: "1", stderr: "", ...ENDED });
});

test("listeners hear the output in pieces, and the result has all of it", async () => {
  const client = new FakeBuntime().onExecute("build", { stdout: "a\nb\n", stderr: "c\n", exitCode: 2 });
  const session = await client.sessions.create();
  const heard: string[][] = [];
  const done = await session.executeCommand("build", {
    onStdout: async (data) => void heard.push(["out", data]),
    onStderr: (data) => void heard.push(["err", data]),
  });
  expect(heard).toEqual([
    ["out", "a\n"],
    ["out", "b\n"],
    ["err", "c\n"],
  ]);
  expect(done).toMatchObject({ stdout: "a\nb\n", stderr: "c\n", exitCode: 2, ok: false });
});

test("a context heard by listeners still returns its value and what it displayed", async () => {
  const shown = { stdout: "a\n", result: { text: "6", json: 6 }, displayed: [{ text: "5", json: 5 }] };
  const session = await new FakeBuntime().onExecute("6", shown).sessions.create();
  const heard: string[] = [];
  const done = await (await session.contexts.create()).execute("6", { onStdout: (data) => void heard.push(data) });
  expect(heard).toEqual(["a\n"]);
  expect(done).toMatchObject({ result: { json: 6 }, displayed: [{ text: "5", json: 5 }] });
});

test("a listener that throws ends the run with its error", async () => {
  const session = await new FakeBuntime().onExecute("1", "a\n").sessions.create();
  const onStdout = () => {
    throw new RangeError("mine");
  };
  expect(await failureOf(session.execute("1", { onStdout }))).toBeInstanceOf(RangeError);
});

test("listeners and an idempotency key exclude each other", async () => {
  const session = await new FakeBuntime().onExecute("1", "a\n").sessions.create();
  const failure = await failureOf(session.execute("1", { onStdout: () => undefined, idempotencyKey: "mine" }));
  expect(failure).toBeInstanceOf(InvalidRequest);
});
