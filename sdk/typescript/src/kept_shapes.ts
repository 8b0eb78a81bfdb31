/** What the server accepts and returns for forks, snapshots and images, as JSON. */

import type { ServiceSettings } from "./service_shapes.js";
import type { NetworkSettings, PreviewSettings, ResourceLimits, SleepPolicy } from "./shapes.js";

/** Settings of a fork. What you leave out is as in the source. No fork inherits `name`, `ttl` and `metadata`. */
export interface ForkSession {
  /** As for a new session. Only for one fork. */
  name?: string | undefined;
  /** Seconds until it expires, or `"never"`, as for a new session. */
  ttl?: number | "never" | undefined;
  /** A JSON object of at most 16,384 bytes. */
  metadata?: Record<string, unknown> | undefined;
  /** Not on the free plan. */
  resourceLimits?: Partial<ResourceLimits> | undefined;
  /** Which ports are open to anyone. */
  preview?: Partial<PreviewSettings> | undefined;
  /** What the session may reach. */
  network?: Partial<NetworkSettings> | undefined;
  /** A command to run after each wake from deep sleep; null for none. */
  onWake?: string | null | undefined;
  /** Variables for every run. */
  env?: Record<string, string> | undefined;
  /** When it sleeps, and how often its files are archived while it is awake. */
  sleepPolicy?: Partial<SleepPolicy> | undefined;
  /** At most 8 programs that run whenever it is awake. */
  services?: ServiceSettings[] | undefined;
}

export interface CreateSnapshot {
  /** Any text; need not be unique. */
  name?: string | undefined;
  /** A JSON object of at most 16,384 bytes. */
  metadata?: Record<string, unknown> | undefined;
  /** Seconds until it expires, from 60; never by default. */
  ttl?: number | undefined;
}

/** The files of a session as they were at one moment. */
export interface Snapshot {
  snapshotId: string;
  /** The session, which may be gone. */
  sessionId: string;
  name: string | null;
  metadata: Record<string, unknown>;
  /** The name of the image that the session stood on. */
  image: string;
  /** How much of its disk limit a session with these files needs. */
  sizeBytes: number;
  createdAt: string;
  /** Null if it stays until it is deleted. */
  expiresAt: string | null;
}

export interface CreateImage {
  /** Set this or `snapshotId`: whose files it has. */
  sessionId?: string | undefined;
  snapshotId?: string | undefined;
  /** Variables for every run in sessions on the image. */
  env?: Record<string, string> | undefined;
}

/** What sessions can stand on. */
export interface Image {
  /** Names the content. */
  imageId: string;
  name: string;
  /** Bytes of all its files. */
  sizeBytes: number;
  createdAt: string;
}
