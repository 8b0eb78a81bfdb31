import { expect, test } from "bun:test";
import type { FileEntry } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { StandIn, json, type Reply } from "./stand_in";

const entries = ["0", "1", "2", "3", "4"].map((path) => ({ path, type: "file", size: 1, modified: "" }));
const page = (from: number, to: number, total: number): Reply => json({ files: entries.slice(from, to), total });

/** Another client deletes an entry of the first two pages before the third is fetched. */
const changing = () => new StandIn(page(0, 2, 5), page(2, 4, 4), page(1, 3, 4), page(3, 5, 4));

test("a loop may delete what it is given", async () => {
  const client = new FakeBuntime();
  const made = new Set<string>();
  while (made.size < 120) made.add((await client.sessions.create({ metadata: { user: "u7" } })).id);
  const found: string[] = [];
  for await (const session of client.sessions.list({ metadata: { user: "u7" } })) {
    found.push(session.id);
    await session.delete();
  }
  expect(found).toHaveLength(120);
  expect(new Set(found)).toEqual(made);
  const { files } = await client.sessions.create();
  for (const path of made) await files.write(`d/${path}`, "x");
  for await (const { path } of files.list("d", { pageSize: 7 })) await files.delete(path);
  expect(await files.list("d").all()).toEqual([]);
});

test("deletions by others make no item come twice, and leave none out", async () => {
  const told = entries.map(({ path }) => path);
  using one = changing();
  const files = await Array.fromAsync(one.client().sessions.open("s").files.list());
  expect(files.map(({ path }) => path)).toEqual(told);
  expect(one.asked.map(({ query }) => query.offset)).toEqual([undefined, "2", "1", "3"]);
  using other = changing();
  expect((await other.client().sessions.open("s").files.list().all()).map(({ path }) => path)).toEqual(told);
});

test("files with undecodable names are all listed", async () => {
  const files = ["/w==", "/g=="].map((pathBase64) => ({ ...entries[0], path: "\ufffd", pathBase64 }));
  using server = new StandIn(json({ files, total: 2 }));
  expect(await server.client().sessions.open("s").files.list().all()).toEqual(files as FileEntry[]);
});
