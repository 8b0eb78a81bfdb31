// A Hono application as people write it: routes, a validator, JSX, events, and an orderly end.
import { Hono } from "hono";
import { html } from "hono/html";
import { HTTPException } from "hono/http-exception";
import { logger } from "hono/logger";
import { streamSSE } from "hono/streaming";
import { validator } from "hono/validator";
import type { PropsWithChildren } from "hono/jsx";

type Note = { id: number; text: string };

const notes = new Map<number, Note>();
const app = new Hono();

const Page = ({ children }: PropsWithChildren) => html`<!doctype html>${(<html lang="en"><body>{children}</body></html>)}`;

app.use(logger());
app.get("/", (c) => c.html(<Page><ul>{[...notes.values()].map((note) => <li>{note.text}</li>)}</ul></Page>));
app.get("/notes", (c) => c.json([...notes.values()]));
app.get("/notes/:id{[0-9]+}", (c) => {
  const note = notes.get(Number(c.req.param("id")));
  if (!note) throw new HTTPException(404, { message: "no such note" });
  return c.json(note);
});
app.post(
  "/notes",
  validator("json", (value: { text?: unknown }, c) =>
    typeof value.text === "string" ? { text: value.text } : c.json({ error: "text is missing" }, 422),
  ),
  (c) => {
    const note = { id: notes.size + 1, text: c.req.valid("json").text };
    notes.set(note.id, note);
    return c.json(note, 201, { Location: `/notes/${note.id}` });
  },
);
app.get("/events", (c) =>
  streamSSE(c, async (stream) => {
    for (const note of notes.values()) await stream.writeSSE({ event: "note", id: String(note.id), data: note.text });
  }),
);
app.onError((error, c) =>
  error instanceof HTTPException ? c.json({ error: error.message }, error.status) : c.json({ error: "broken" }, 500),
);

const server = Bun.serve({ port: 8080, fetch: app.fetch });
process.on("SIGTERM", async () => {
  await server.stop(true);
  console.log(`kept ${notes.size} notes to the end`);
  process.exit(7);
});
console.log("listening");
