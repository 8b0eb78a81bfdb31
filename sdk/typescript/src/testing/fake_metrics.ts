/** What fake sessions do. A session that is awake has one measurement, of a program that does nothing. */

import type { MeasuredSession, Metrics, SessionMetrics } from "../metrics_shapes.js";
import { refuse } from "./answers.js";
import { sizeOf, stamp, type FakeSession } from "./fake_session.js";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const PAGE = "100"; // sessions

export function metricsOf(session: FakeSession, query: Record<string, string>, now: Date): SessionMetrics {
  const until = Math.min(timeOf("to", query) ?? now.getTime(), now.getTime());
  const since = timeOf("from", query) ?? until - HOUR;
  if (since >= until) refuse("invalid_request", "from must be before to.", { field: "from" });
  const finest = since >= now.getTime() - DAY ? 10 : 300;
  const step = Math.ceil(Number(query.step ?? 10) / finest) * finest;
  const isShown = session.shape.state === "active" && now.getTime() <= until;
  const point = idle(session, new Date(Math.floor(now.getTime() / 1000 / step) * step * 1000));
  const most = { cpuMax: 0, memoryMax: 0, diskMax: point.disk, processesMax: point.processes };
  const points = isShown ? [{ ...point, ...most, bytesInMax: 0, bytesOutMax: 0 }] : [];
  return { sessionId: session.id, from: stamp(new Date(since)), to: stamp(new Date(until)), step, points };
}

export function measuredSessions(sessions: FakeSession[], query: Record<string, string>): unknown {
  const [offset, limit] = [Number(query.offset ?? "0"), Number(query.limit ?? PAGE)];
  return { sessions: sessions.slice(offset, offset + limit).map(measured), total: sessions.length };
}

function measured(session: FakeSession): MeasuredSession {
  const { sessionId, name, state, createdAt, expiresAt, lastActive, resourceLimits } = session.shape;
  const metrics = state === "active" ? idle(session, new Date(lastActive)) : null;
  return { sessionId, name, state, createdAt, expiresAt, lastActive, resourceLimits, metrics };
}

function idle(session: FakeSession, at: Date): Metrics {
  const [disk, processes] = [sizeOf(session.origin), session.shape.activeProcesses];
  return { time: stamp(at), seconds: 10, cpu: 0, memory: 0, disk, processes, bytesIn: 0, bytesOut: 0 };
}

function timeOf(name: string, query: Record<string, string>): number | undefined {
  const text = query[name];
  if (text === undefined) return undefined;
  const time = Date.parse(text);
  if (Number.isNaN(time)) refuse("invalid_request", `${name} must be a time with its zone.`, { field: name });
  return time;
}
