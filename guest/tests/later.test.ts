import { expect, test } from "bun:test";
import { json } from "../src/answer";
import { Asked, type Handlers } from "../src/asked";
import type { Body } from "../src/body";
import { later } from "../src/later";
import { failure, Guest } from "./guest";

const HANDLERS: Handlers = { "GET /part": () => json({ is: "there" }), "POST /part/end": () => json({ ended: 1 }) };
const NAMES = / \/part(?:\/|$)/;

const ask = (operation: string) => new Asked(operation, {} as Body);

test("a part is loaded once, by the first request for it", async () => {
  let loads = 0;
  const find = later(NAMES, [], async () => (loads++, HANDLERS));
  expect(find("GET /other")).toBeUndefined();
  expect(loads).toBe(0);
  for (let time = 0; time < 3; time++)
    expect(await find("GET /part")!(ask("GET /part"))).toEqual(json({ is: "there" }));
  expect(loads).toBe(1);
});

test("requests that come while a part is loaded are answered in their order", async () => {
  const { promise, resolve } = Promise.withResolvers<Handlers>();
  const [seen, find] = [new Array<number>(), later(NAMES, [], () => promise)];
  const one = (number: number) => find("GET /part")!(ask(`GET /part?${number}`));
  const asked = [one(0), one(1)];
  resolve({ "GET /part": ({ target }) => (seen.push(Number(target.at(-1))), json({})) });
  asked.push(one(2));
  await Promise.all(asked);
  expect(seen).toEqual([0, 1, 2]);
});

test("a part that could not be loaded is loaded by the next request", async () => {
  let loads = 0;
  const find = later(NAMES, [], async () => {
    if (loads++ === 0) throw new Error("too many open files");
    return HANDLERS;
  });
  expect(async () => await find("GET /part")!(ask("GET /part"))).toThrow("too many open files");
  expect(await find("GET /part")!(ask("GET /part"))).toEqual(json({ is: "there" }));
});

test("an ending does not load the part, and reaches one that is loaded", async () => {
  let loads = 0;
  const find = later(NAMES, ["POST /part/end"], async () => (loads++, HANDLERS));
  expect(await find("POST /part/end")!(ask("POST /part/end"))).toEqual(json({}));
  expect(loads).toBe(0);
  await find("GET /part")!(ask("GET /part"));
  expect(await find("POST /part/end")!(ask("POST /part/end"))).toEqual(json({ ended: 1 }));
});

test("a part refuses operations that it does not have, loaded or not", async () => {
  const guest = await Guest.start();
  try {
    for (let time = 0; time < 2; time++) {
      for (const path of ["/processes/other", "/contexts/constructor", "/terminals/", "/terminals/toString"])
        expect(await failure(await guest.get(path))).toEqual([404, "ENOSYS"]);
      expect((await guest.get("/processes")).status).toBe(200);
    }
  } finally {
    await guest.stop();
  }
});
