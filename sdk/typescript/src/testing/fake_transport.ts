/** Replaces the network and the server behind it. */

import { BuntimeError } from "../index.js";
import type { CreateKey } from "../account_shapes.js";
import type { CreateWebhook, UpdateWebhook } from "../event_shapes.js";
import type { CreateImage, ForkSession } from "../kept_shapes.js";
import { nearest } from "../nearest.js";
import type { CreateSession, UpdateSession } from "../shapes.js";
import type { Answer, Ask, Socket, Transport } from "../transport.js";
import { unlessAborted } from "../waiting.js";
import { Refusal, errorObject, failed, refuse, refused, whole } from "./answers.js";
import { FakeEvents, FakeWebhooks } from "./fake_events.js";
import { hostsOf } from "./fake_hosts.js";
import { FakeKeys } from "./fake_keys.js";
import { FakeImages, FakeSnapshots, requireFit } from "./fake_kept.js";
import { measuredSessions, metricsOf } from "./fake_metrics.js";
import { Servers, addressOf } from "./fake_previews.js";
import { DEFAULT_IMAGE, FakeSession, stamp, type Clock, type Origin } from "./fake_session.js";
import { FakeTerminal } from "./fake_terminal.js";
import { FakeUsage } from "./fake_usage.js";
import { FILE_ROUTES, pageOf } from "./file_routes.js";
import { requestOf, type FakeRequest } from "./request.js";
import { RUN_ROUTES, type Tools } from "./run_routes.js";
import { Scripts } from "./scripts.js";

/** A failure in place of a response. */
export interface Trouble {
  readonly method: string;
  readonly path: string;
  readonly error: BuntimeError;
  /** Do the work and lose only the response. */
  readonly isLost: boolean;
  times: number;
}

const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const EXISTING = "session-existing"; // a header
const OF_ONE_SESSION = /^\/sessions\/([^/]+)(\/[a-z-]+)?$/;
const OF_ONE_SERVICE = /^POST \/sessions\/([^/]+)\/services\/([^/]+)\/(start|stop|restart)$/;
const SLEEPS_ON = new Set([
  "GET /sessions/{id}",
  "GET /sessions/{id}/metrics",
  "PATCH /sessions/{id}",
  "DELETE /sessions/{id}",
  "POST /sessions/{id}/sleep",
  "POST /sessions/{id}/snapshots",
  "POST /sessions/{id}/fork",
  "POST /sessions/{id}/restore",
  "POST /sessions/{id}/recover",
]);
const MOST_FORKS = 100;
const OPERATIONS = [
  "POST /sessions/create",
  "GET /sessions",
  "GET /metrics/sessions",
  "POST /images/create",
  "GET /images",
  "DELETE /images/{name}",
  "GET /snapshots",
  "GET /snapshots/{id}",
  "DELETE /snapshots/{id}",
  "GET /account",
  "POST /keys/create",
  "GET /keys",
  "DELETE /keys/{id}",
  "GET /usage",
  "GET /usage/windows",
  "GET /hosts",
  "GET /events",
  "POST /webhooks/create",
  "GET /webhooks",
  "GET /webhooks/{id}",
  "PATCH /webhooks/{id}",
  "DELETE /webhooks/{id}",
  "POST /webhooks/{id}/rotate",
  "POST /webhooks/{id}/test",
  "GET /webhooks/{id}/deliveries",
  "POST /webhooks/{id}/deliveries/{deliveryId}/redeliver",
  ...SLEEPS_ON,
  "POST /sessions/{id}/wake",
  "POST /sessions/{id}/preview-token",
  "DELETE /sessions/{id}/preview-token",
  "GET /sessions/{id}/terminal",
  "GET /sessions/{id}/services",
  ...["start", "stop", "restart"].map((what) => `POST /sessions/{id}/services/{name}/${what}`),
  ...Object.keys(RUN_ROUTES),
  ...Object.keys(FILE_ROUTES),
];

export class FakeTransport implements Transport {
  readonly requests: FakeRequest[] = [];
  readonly scripts = new Scripts();
  readonly servers = new Servers();
  readonly sessions = new Map<string, FakeSession>();
  readonly images: FakeImages;
  mostSessions = Infinity;
  readonly troubles: Trouble[] = [];
  readonly #answered = new Map<string, { request: string; body: Promise<unknown> }>();
  readonly #clock: Clock;
  readonly #since: Date;
  readonly #snapshots: FakeSnapshots;
  readonly #keys: FakeKeys;
  readonly #usage: FakeUsage;
  readonly #webhooks: FakeWebhooks;
  readonly events: FakeEvents;
  #ids = 0;

  constructor(clock: Clock = () => new Date()) {
    this.#clock = clock;
    this.#since = clock();
    this.images = new FakeImages(clock);
    this.#snapshots = new FakeSnapshots(clock, (kind) => this.#newId(kind));
    this.#keys = new FakeKeys(clock, (kind) => this.#newId(kind));
    this.#usage = new FakeUsage(clock);
    this.#webhooks = new FakeWebhooks(clock, (kind) => this.#newId(kind));
    this.events = new FakeEvents(clock, (kind) => this.#newId(kind), this.#webhooks);
  }

  readonly #tools: Tools = { scripts: this.scripts, newId: (kind) => this.#newId(kind) };

  send(ask: Ask): Promise<Answer> {
    return unlessAborted(this.#send(ask), ask.signal); // a script may take longer than its caller waits
  }

  async #send(ask: Ask): Promise<Answer> {
    const request = await requestOf(ask);
    this.requests.push(request);
    ask.signal.throwIfAborted();
    const preview = addressOf(request);
    if (preview !== null)
      return await this.servers.visit(() => this.#session(preview.sessionId), preview.port, request);
    const trouble = this.#trouble(request);
    if (trouble !== undefined && !trouble.isLost) return refused(trouble.error);
    try {
      this.#usage.look(this.sessions); // what has expired since the last request
      const answer = await this.#answer(request, ask.signal);
      return trouble === undefined ? answer : refused(trouble.error);
    } catch (failure) {
      return refusedBy(failure);
    } finally {
      this.#usage.look(this.sessions);
    }
  }

  async connect(ask: Ask): Promise<Socket | Answer> {
    const request = await requestOf(ask);
    this.requests.push(request);
    const trouble = this.#trouble(request);
    try {
      if (trouble !== undefined) return refused(trouble.error);
      const session = this.#session(OF_ONE_SESSION.exec(request.path)?.[1]);
      const { terminalId } = request.query;
      if (terminalId !== undefined && !session.terminals.has(terminalId))
        refuse("terminal_not_found", "This session has no terminal with this id.", { terminalId });
      session.wake();
      const id = terminalId ?? this.#newId("term");
      return new FakeTerminal(session, this.scripts, id, terminalId !== undefined);
    } catch (failure) {
      return refusedBy(failure);
    }
  }

  /** Returns the scripted failure for this request, if any, and counts it as used. */
  #trouble(request: FakeRequest): Trouble | undefined {
    const found = this.troubles.find(
      ({ method, path, times }) => times > 0 && method === request.method && isMeant(path, request.path),
    );
    if (found !== undefined) found.times -= 1;
    return found;
  }

  /** Returns the first response again for a repeated key. */
  async #answer(request: FakeRequest, signal: AbortSignal): Promise<Answer> {
    const key = request.headers["idempotency-key"];
    if (key === undefined) return answerOf(await this.#route(request, signal));
    const shown = JSON.stringify([request.method, request.path, request.query, request.body]);
    const before = this.#answered.get(key);
    if (before !== undefined) {
      if (before.request !== shown) refuse("idempotency_key_reused", "This key belongs to another request.");
      const told = await before.body;
      const headers = { "idempotent-replayed": "true" };
      return told instanceof Existing ? told.answer(headers) : whole(200, told, headers);
    }
    const work = this.#route(request, signal);
    this.#keep(key, shown, work);
    return answerOf(await work);
  }

  /** Shares the work among calls with the same key, even while it is in progress. A failure is not kept. */
  #keep(key: string, request: string, work: Promise<unknown>): void {
    const body = work.then((answered) => (answered instanceof Existing ? answered : structuredClone(answered)));
    this.#answered.set(key, { request, body });
    body.catch(() => this.#answered.delete(key));
  }

  async #route(request: FakeRequest, signal: AbortSignal): Promise<unknown> {
    const called = `${request.method} ${request.path}`;
    if (called === "POST /sessions/create") return this.#create((request.body ?? {}) as CreateSession);
    if (called === "GET /sessions") return this.#list(request.query);
    if (called === "GET /metrics/sessions") return measuredSessions(this.#wanted(request.query), request.query);
    if (called === "GET /images") return this.images.list(request.query);
    if (called === "POST /images/create") return this.#makeImage(request.body as CreateImage);
    const image = /^DELETE \/images\/([^/]+)$/.exec(called);
    if (image !== null) return this.images.delete(decodeURIComponent(image[1]!));
    if (called === "GET /account") return this.#account();
    if (called === "GET /events") return this.events.list(this.#withId(request.query), signal);
    if (request.path.startsWith("/webhooks")) return this.#ofWebhooks(called, request);
    if (called === "POST /keys/create") {
      const made = this.#keys.create((request.body ?? {}) as CreateKey);
      const { keyId, name, hint, scopes } = made;
      this.events.add("key.created", null, { keyId, name, hint, scopes });
      return made;
    }
    if (called === "GET /keys") return this.#keys.list(request.query);
    const key = /^DELETE \/keys\/([^/]+)$/.exec(called);
    if (key !== null) {
      const { keyId, name, hint } = this.#keys.delete(decodeURIComponent(key[1]!));
      this.events.add("key.revoked", null, { keyId, name, hint });
      return { deleted: true, keyId };
    }
    if (called === "GET /usage") return this.#usage.get(this.#withId(request.query));
    if (called === "GET /usage/windows") return this.#usage.windows(request.query);
    if (called === "GET /hosts") return hostsOf(this.sessions.values(), this.#since);
    if (called === "GET /snapshots") return this.#snapshots.list(this.#withId(request.query));
    const snapshot = /^(GET|DELETE) \/snapshots\/([^/]+)$/.exec(called);
    if (snapshot?.[1] === "GET") return this.#snapshots.find(snapshot[2]!).shape;
    if (snapshot?.[1] === "DELETE") return this.#snapshots.delete(snapshot[2]!);
    const service = OF_ONE_SERVICE.exec(called);
    if (service !== null) return this.#service(service[1]!, decodeURIComponent(service[2]!), service[3]!);
    const one = OF_ONE_SESSION.exec(request.path);
    if (one !== null) return this.#ofSession(`${request.method} /sessions/{id}${one[2] ?? ""}`, one[1], request);
    const fields = request.method === "POST" ? (request.body as Record<string, string>) : request.query;
    const [runs, files] = [RUN_ROUTES[called], FILE_ROUTES[called]];
    if (runs === undefined && files === undefined) refuse("not_found", `There is no ${called}.`);
    const session = this.#session(fields.sessionId);
    session.wake();
    return runs?.(session, request, this.#tools, signal) ?? files?.(session, request, signal);
  }

  #ofWebhooks(called: string, { query, body }: FakeRequest): unknown {
    const webhooks = this.#webhooks;
    if (called === "GET /webhooks") return webhooks.list(query);
    if (called === "POST /webhooks/create") {
      const made = webhooks.create(body as CreateWebhook);
      this.events.add("webhook.created", null, { webhookId: made.webhookId });
      return made;
    }
    const [, method, id, rest, deliveryId] =
      /^(\w+) \/webhooks\/([^/]+)(\/rotate|\/test|\/deliveries)?(?:\/([^/]+)\/redeliver)?$/.exec(called) ?? [];
    const webhookId = decodeURIComponent(id ?? "");
    const told = <T>(type: "webhook.changed" | "webhook.deleted", answer: T): T => {
      this.events.add(type, null, { webhookId });
      return answer;
    };
    switch (`${method} ${rest ?? ""}`) {
      case "GET ":
        return webhooks.get(webhookId);
      case "PATCH ":
        return told("webhook.changed", webhooks.update(webhookId, body as UpdateWebhook));
      case "DELETE ":
        return told("webhook.deleted", webhooks.delete(webhookId));
      case "POST /rotate":
        return told("webhook.changed", webhooks.rotate(webhookId, (body ?? {}) as { overlap?: number }));
      case "GET /deliveries":
        return webhooks.deliveries(webhookId, query);
      case "POST /deliveries":
        return webhooks.redeliver(webhookId, decodeURIComponent(deliveryId ?? ""));
      case "POST /test":
        webhooks.requireOn(webhookId);
        return { eventId: this.events.add("webhook.test", null, { webhookId }).eventId };
      default:
        refuse("not_found", `There is no ${called}.`);
    }
  }

  #account(): unknown {
    const { count: snapshots } = this.#snapshots;
    return this.#keys.account({ sessions: this.#active, snapshots, images: this.images.made });
  }

  get #active(): number {
    return [...this.sessions.values()].filter(({ isExpired }) => !isExpired).length;
  }

  #create({ onConflict, ...fields }: CreateSession & { onConflict?: "error" | "return" }): unknown {
    const { name, image, snapshotId } = fields;
    if (onConflict === "return") {
      if (name === undefined) refuse("invalid_request", "onConflict return needs a name.", { field: "onConflict" });
      const existing = this.#named(name);
      if (existing !== undefined) return new Existing(existing.created);
    }
    if (snapshotId === undefined) return this.#begin(fields, this.images.find(image ?? DEFAULT_IMAGE));
    if (image !== undefined) {
      const message = "Give image or snapshotId, not both: a snapshot has its image.";
      refuse("invalid_request", message, { field: "snapshotId" });
    }
    return this.#begin(fields, this.#snapshots.find(snapshotId).origin);
  }

  /** Begins a session. Returns the response to its creation. */
  #begin(fields: CreateSession, origin: Origin): unknown {
    this.#requireFree(fields.name);
    const id = this.#newId("ses");
    const session = new FakeSession(id, fields, origin, this.#clock, (process) => this.events.addExit(id, process));
    requireFit(origin, session.shape.resourceLimits.disk);
    const active = this.#active;
    if (active >= this.mostSessions) {
      const message = `The fake plan allows ${this.mostSessions} concurrent sessions and ${active} are in use.`;
      refuse("session_limit_exceeded", message, { plan: "fake", limit: this.mostSessions, active });
    }
    this.sessions.set(session.id, session);
    const { name, image, snapshotId } = session.shape;
    this.events.add("session.created", session.id, { name, image, snapshotId });
    return session.created;
  }

  #fork(source: FakeSession, { count = 1, ...asked }: ForkSession & { count?: number }): unknown {
    if (!(count >= 1 && count <= MOST_FORKS)) {
      const message = `count must be 1 to ${MOST_FORKS}, not ${count}.`;
      refuse("invalid_request", message, { field: "count", limit: MOST_FORKS });
    }
    this.#requireFree(asked.name, count);
    const { settings, origin } = source;
    const resourceLimits = { ...settings.resourceLimits, ...asked.resourceLimits };
    requireFit(origin, resourceLimits.disk);
    const made = Array.from({ length: count }, () => {
      try {
        return { session: this.#begin({ ...settings, ...asked, resourceLimits }, origin) };
      } catch (failure) {
        if (failure instanceof Refusal) return { error: errorObject(failure.failure), failure };
        throw failure;
      }
    });
    if (made.every((one) => "failure" in one)) throw made[0]!.failure;
    return { sessions: made.map(({ session, error }) => (session === undefined ? { error } : { session })) };
  }

  #makeImage(fields: CreateImage): unknown {
    const { sessionId, snapshotId } = fields;
    if ((sessionId === undefined) === (snapshotId === undefined))
      refuse("invalid_request", "Give exactly one of sessionId and snapshotId.", { field: "sessionId" });
    const { origin } = snapshotId === undefined ? this.#session(sessionId) : this.#snapshots.find(snapshotId);
    return this.images.make(fields, origin);
  }

  #list(query: Record<string, string>): unknown {
    const shapes = this.#wanted(query).map(({ shape }) => shape);
    const { items, total } = pageOf(shapes, query);
    return { sessions: items, total };
  }

  /** The sessions that a query selects, newest first. */
  #wanted(query: Record<string, string>): FakeSession[] {
    return [...this.sessions.values()].reverse().filter(({ shape }) => {
      if (query.state !== undefined && shape.state !== query.state) return false;
      if (query.name !== undefined && shape.name !== query.name) return false;
      return Object.entries(query).every(([name, value]) => {
        const key = name.startsWith("metadata.") ? name.slice("metadata.".length) : null;
        return key === null || String(shape.metadata[key]) === value;
      });
    });
  }

  #ofSession(called: string, id: string | undefined, { body, query }: FakeRequest): unknown {
    const session = this.#session(id);
    const fields = (body ?? {}) as Record<string, never>;
    const before = session.shape.state;
    if (!SLEEPS_ON.has(called)) session.wake();
    switch (called) {
      case "GET /sessions/{id}":
        return session.shape;
      case "GET /sessions/{id}/metrics":
        return metricsOf(session, query, this.#clock());
      case "PATCH /sessions/{id}":
        this.#requireFree((fields as UpdateSession).name, 1, session.id);
        session.update(fields as UpdateSession);
        return session.shape;
      case "DELETE /sessions/{id}":
        this.sessions.delete(session.id);
        this.events.add("session.deleted", session.id, { name: session.name, stateBefore: before });
        return { deleted: true, sessionId: session.id };
      case "POST /sessions/{id}/snapshots":
        return this.#snapshots.take(session, fields);
      case "POST /sessions/{id}/fork":
        return this.#fork(session, fields);
      case "POST /sessions/{id}/restore":
        this.#snapshots.restore(session, fields.snapshotId ?? "");
        return session.shape;
      case "POST /sessions/{id}/recover":
        refuse("invalid_state", "The session's files are not lost: there is nothing to recover.", {
          reason: "not_lost",
        });
      case "POST /sessions/{id}/sleep":
        session.requireUnused();
        session.sleep(fields.depth ?? "idle");
        return session.shape;
      case "POST /sessions/{id}/wake":
        return { ...session.shape, wokeFrom: before, wakeTimeMs: before === "active" ? 0 : 1 };
      case "GET /sessions/{id}/services":
        return { services: session.services.list() };
      case "POST /sessions/{id}/preview-token":
        return this.#token(session, fields as { port?: number; ttl?: number });
      case "DELETE /sessions/{id}/preview-token":
        return { revoked: revoked(session.tokens, fields.token) };
      default:
        refuse("not_found", `There is no ${called}.`);
    }
  }

  #service(id: string, name: string, what: string): unknown {
    const session = this.#session(id);
    session.wake();
    return session.services.act(name, what);
  }

  #token(session: FakeSession, { port = 8080, ttl = 3600 }: { port?: number; ttl?: number }): unknown {
    const token = this.#newId("bpt");
    session.tokens.add(token);
    const host = session.shape.previewUrl.replace(/^(\w+:\/\/[^.]+)/, port === 8080 ? "$1" : `$1-${port}`);
    return { url: `${host}/?buntime_token=${token}`, token, expiresAt: stamp(this.#clock(), ttl) };
  }

  /** The living session of this name. */
  #named(name: string): FakeSession | undefined {
    return [...this.sessions.values()].find((one) => one.name === name && !one.isExpired);
  }

  #requireFree(name: string | null | undefined, count = 1, forSession = ""): void {
    if (name === undefined || name === null) return;
    if (count > 1) refuse("invalid_request", "name is for one session.", { field: "name" });
    if (!NAME.test(name)) {
      const message = "name must have 1 to 63 characters of a-z, 0-9 and -, and start with a letter or digit.";
      refuse("invalid_request", message, { field: "name" });
    }
    const holder = this.#named(name);
    if (holder === undefined || holder.id === forSession) return;
    const details = { name, sessionId: holder.id };
    refuse("name_taken", `The session ${holder.id} has the name ${name}.`, details);
  }

  /** The query with an id where it has a name. */
  #withId(query: Record<string, string>): Record<string, string> {
    const { sessionId } = query;
    return sessionId?.startsWith("name:") ? { ...query, sessionId: this.#session(sessionId).id } : query;
  }

  #session(id: string | undefined): FakeSession {
    const wanted = decodeURIComponent(id ?? "");
    const session = wanted.startsWith("name:") ? this.#named(wanted.slice("name:".length)) : this.sessions.get(wanted);
    if (session !== undefined && !session.isExpired) return session;
    refuse("session_not_found", "No session with this id. It may have expired or been deleted.", { sessionId: id });
  }

  #newId(kind: string): string {
    this.#ids += 1;
    return `${kind}_${String(this.#ids).padStart(18, "0")}`;
  }
}

/** What a create returns for a session that had the name. */
class Existing {
  constructor(readonly shape: unknown) {}

  answer(headers: Record<string, string> = {}): Answer {
    return whole(200, this.shape, { [EXISTING]: "true", ...headers });
  }
}

function revoked(tokens: Set<string>, token: string | undefined): number {
  if (token !== undefined) return tokens.delete(token) ? 1 : 0;
  const { size } = tokens;
  tokens.clear();
  return size;
}

function refusedBy(failure: unknown): Answer {
  if (failure instanceof Refusal) return failed(failure.failure);
  if (failure instanceof BuntimeError) return refused(failure); // a script's
  throw failure;
}

/** Throws a TypeError, with the nearest operations, if the SDK makes no such call. */
export function requireOperation(method: string, path: string): void {
  const isKnown = OPERATIONS.some((operation) => {
    const [known, template = ""] = operation.split(" ");
    return known === method && (isMeant(path, template) || isMeant(template, path));
  });
  if (isKnown) return;
  const called = `${method} ${path}`;
  throw new TypeError(`There is no ${called}. The nearest are ${nearest(called, OPERATIONS).join(", ")}.`);
}

/** A name in braces, such as `{id}`, matches one part of the path. */
function isMeant(pattern: string, path: string): boolean {
  const [want, have] = [pattern.split("/"), path.split("/")];
  return want.length === have.length && want.every((part, at) => part === have[at] || /^\{\w+\}$/.test(part));
}

/** A route returns the body of its answer, or the whole answer. */
function answerOf(told: unknown): Answer {
  if (told instanceof Existing) return told.answer();
  return isAnswer(told) ? told : whole(200, told);
}

function isAnswer(told: unknown): told is Answer {
  return typeof told === "object" && told !== null && "parts" in told && "text" in told;
}
