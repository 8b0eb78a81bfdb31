/** What the fake account keeps beside its sessions: snapshots and images. */

import type { CreateImage, CreateSnapshot, Image, Snapshot } from "../kept_shapes.js";
import { refuse } from "./answers.js";
import {
  DEFAULT_IMAGE,
  sizeOf,
  stamp,
  type Clock,
  type FakeSession,
  type Origin,
  type Records,
} from "./fake_session.js";
import { NOTHING } from "./fake_files.js";
import { pageOf } from "./file_routes.js";

interface FakeSnapshot {
  readonly shape: Snapshot;
  readonly origin: Origin;
  readonly records: Records;
  /** Taken before a restore. */
  readonly isAutomatic: boolean;
}

interface FakeImage {
  readonly shape: Image;
  readonly origin: Origin;
}

const BEFORE_RESTORE = { name: "before-restore", ttl: 86_400 };
const SHORTEST_TTL = 60;
const LONGEST_NAME = 255;
const MB = 1 << 20;

export class FakeSnapshots {
  readonly #kept = new Map<string, FakeSnapshot>();

  constructor(
    private readonly clock: Clock,
    private readonly newId: (kind: string) => string,
  ) {}

  take(session: FakeSession, fields: CreateSnapshot, isAutomatic = false): Snapshot {
    const { name = null, metadata = {}, ttl = null } = fields;
    if (name !== null && (name.length < 1 || name.length > LONGEST_NAME)) {
      const message = `name must be 1 to ${LONGEST_NAME} printable characters.`;
      refuse("invalid_request", message, { field: "name", limit: LONGEST_NAME });
    }
    if (ttl !== null && ttl < SHORTEST_TTL) {
      const message = `ttl must be at least ${SHORTEST_TTL} seconds, or null, not ${ttl}.`;
      refuse("invalid_request", message, { field: "ttl", limit: SHORTEST_TTL });
    }
    const { origin, records } = session;
    const shape = {
      snapshotId: this.newId("snp"),
      sessionId: session.id,
      name,
      metadata,
      image: origin.image,
      sizeBytes: sizeOf(origin),
      createdAt: stamp(this.clock()),
      expiresAt: ttl === null ? null : stamp(this.clock(), ttl),
    };
    this.#kept.set(shape.snapshotId, { shape, origin, records, isAutomatic });
    return shape;
  }

  list(query: Record<string, string>): unknown {
    const all = [...this.#kept.values()].filter((one) => !this.#isExpired(one)).reverse();
    const wanted = all.map(({ shape }) => shape).filter(isWanted);
    const { items, total } = pageOf(wanted, query);
    return { snapshots: items, total };

    function isWanted({ sessionId, name }: Snapshot): boolean {
      return (query.sessionId ?? sessionId) === sessionId && (query.name ?? name) === name;
    }
  }

  /** How many there are, without those from before a restore. */
  get count(): number {
    return [...this.#kept.values()].filter((kept) => !kept.isAutomatic && !this.#isExpired(kept)).length;
  }

  /** Throws a `snapshot_not_found`. */
  find(snapshotId: string): FakeSnapshot {
    const kept = this.#kept.get(snapshotId);
    if (kept !== undefined && !this.#isExpired(kept)) return kept;
    refuse("snapshot_not_found", "No snapshot with this id. It may have expired or been deleted.", { snapshotId });
  }

  delete(snapshotId: string): unknown {
    this.find(snapshotId);
    this.#kept.delete(snapshotId);
    return { deleted: true, snapshotId };
  }

  restore(session: FakeSession, snapshotId: string): void {
    const { origin, records } = this.find(snapshotId);
    const limit = session.shape.resourceLimits.disk;
    if (sizeOf(origin) > limit * MB) refuse("disk_full", tooLarge(origin, limit), { limit });
    session.requireUnused();
    for (const [id, { shape, isAutomatic }] of this.#kept)
      if (isAutomatic && shape.sessionId === session.id) this.#kept.delete(id);
    this.take(session, BEFORE_RESTORE, true);
    session.beginAgain(origin, records);
  }

  #isExpired({ shape: { expiresAt } }: FakeSnapshot): boolean {
    return expiresAt !== null && this.clock().getTime() >= Date.parse(expiresAt);
  }
}

/** The operator's images and the account's own. A name of the account hides the operator's. */
export class FakeImages {
  readonly #added = new Map<string, FakeImage>();
  readonly #made = new Map<string, FakeImage>();

  constructor(private readonly clock: Clock) {}

  /** How many are of the account itself. */
  get made(): number {
    return this.#made.size;
  }

  /** Adds an image, as an operator does. */
  add(name: string, sizeBytes: number): void {
    const imageId = `root-${name.replace(/[^0-9a-f]/g, "").padStart(32, "0")}`;
    const shape = { imageId, name, sizeBytes, createdAt: stamp(this.clock()) };
    this.#added.set(name, { shape, origin: { image: name, kept: NOTHING, imageEnv: {} } });
  }

  /** Makes an image of the account with the files of `base`. */
  make({ name, env }: CreateImage & { name?: unknown }, base: Origin): Image {
    if (typeof name !== "string" || name === DEFAULT_IMAGE || !/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name))
      refuse("invalid_request", `name: '${name}' cannot be the name of an image.`, { field: "name" });
    const origin = { ...base, image: name, imageEnv: { ...base.imageEnv, ...env } };
    const imageId = `img_${digestOf(origin)}`;
    const shape = { imageId, name, sizeBytes: sizeOf(origin), createdAt: stamp(this.clock()) };
    this.#made.set(name, { shape, origin });
    return shape;
  }

  list(query: Record<string, string>): unknown {
    const all = [...new Map([...this.#added, ...this.#made]).values()].map(({ shape }) => shape);
    const { items, total } = pageOf(
      all.sort((one, other) => (one.name < other.name ? -1 : 1)),
      query,
    );
    return { images: items, total };
  }

  /** Throws an `image_not_found`. */
  find(name: string): Origin {
    if (name === DEFAULT_IMAGE) return { image: name, kept: NOTHING, imageEnv: {} };
    const found = this.#made.get(name) ?? this.#added.get(name);
    if (found !== undefined) return found.origin;
    refuse("image_not_found", `There is no image '${name}'. List the images with GET /images.`, { image: name });
  }

  delete(name: string): unknown {
    if (this.#made.delete(name)) return { deleted: true, name };
    this.find(name);
    refuse("forbidden", `The image '${name}' is the operator's. Only the operator can remove it.`);
  }
}

/** Throws an `invalid_request` when the files need more than a disk limit of `limit` MB. */
export function requireFit(origin: Origin, limit: number): void {
  const details = { field: "resourceLimits.disk", limit };
  if (sizeOf(origin) > limit * MB) refuse("invalid_request", tooLarge(origin, limit), details);
}

function tooLarge(origin: Origin, limit: number): string {
  const needed = Math.ceil(sizeOf(origin) / MB);
  return `The snapshot's files need ${needed} MB, and the session's disk limit is ${limit} MB.`;
}

/** Names the content. It need not be safe: no other content is made on purpose. */
function digestOf({ kept, imageEnv }: Origin): string {
  const files = [...kept.files].sort(([one], [other]) => (one < other ? -1 : 1));
  const told = files.map(([path, { content, mode }]) => [path, mode, [...content]]);
  const text = JSON.stringify([told, [...kept.directories.keys()].sort(), Object.entries(imageEnv).sort()]);
  let [low, high] = [0x811c9dc5, 0xdeadbeef];
  for (let at = 0; at < text.length; at += 1) {
    low = Math.imul(low ^ text.charCodeAt(at), 0x01000193) >>> 0;
    high = Math.imul(high ^ low, 0x5bd1e995) >>> 0;
  }
  return (low.toString(16).padStart(8, "0") + high.toString(16).padStart(8, "0")).repeat(2);
}
