/** What is known of a session when it was made. */

import { DEFAULT_PORT } from "./previews.js";
import type { ForkSession } from "./kept_shapes.js";
import type { DeclaredService, ServiceSettings } from "./service_shapes.js";
import type { CreateSession, CreatedShape, SessionShape, SleepPolicy, UpdateSession } from "./shapes.js";

/** A session's properties, as far as they are known. */
export type KnownShape = CreatedShape & { [Name in keyof SessionShape]?: SessionShape[Name] | undefined } & {
  existed?: boolean;
};

const DEFAULT_IMAGE = "default";

/**
 * Combines the response of a create with the settings that were asked for. Without what depends on a snapshot or on
 * another image.
 */
export function asMade(made: CreatedShape, fields: CreateSession): KnownShape {
  const image = fields.snapshotId === undefined ? (fields.image ?? DEFAULT_IMAGE) : undefined;
  return {
    ...asNew(made, fields),
    preview: { visibility: "public", ports: [DEFAULT_PORT], ...fields.preview },
    network: { egress: "internet", allow: [], deny: [], ...fields.network },
    onWake: fields.onWake ?? null,
    sleepPolicy: asked(fields.sleepPolicy),
    services: declared(fields.services),
    envNames: Object.keys(fields.env ?? {}).sort(),
    image,
    snapshotId: fields.snapshotId ?? null,
    filesCount: image === DEFAULT_IMAGE ? 0 : undefined,
  };
}

/** Combines a session in the response of a fork with what was asked for, and with what is known of the source. */
export function asForked(made: CreatedShape, fields: ForkSession, source: Partial<KnownShape>): KnownShape {
  const { preview, network, onWake, sleepPolicy, services, envNames, image } = source;
  return {
    ...asNew(made, fields),
    preview:
      fields.preview === undefined ? preview : { visibility: "public", ports: [DEFAULT_PORT], ...fields.preview },
    network: fields.network === undefined ? network : { egress: "internet", allow: [], deny: [], ...fields.network },
    onWake: fields.onWake === undefined ? onWake : fields.onWake,
    sleepPolicy: fields.sleepPolicy === undefined ? sleepPolicy : asked(fields.sleepPolicy),
    services: fields.services === undefined ? services : declared(fields.services),
    envNames: fields.env === undefined ? envNames : Object.keys(fields.env).sort(),
    image,
    snapshotId: null,
  };
}

/** Services that were asked for, as the server shows them. */
export function declared(services: readonly ServiceSettings[] | null | undefined): DeclaredService[] {
  return (services ?? []).map(({ name, command, port = null, workingDir = "/workspace", env = {}, restart }) => {
    return { name, command, port, workingDir, envNames: Object.keys(env).sort(), restart: restart ?? "always" };
  });
}

/** Defaults of the server and of the plan are not known. */
function asked(policy: Partial<SleepPolicy> | undefined): SleepPolicy | undefined {
  const { idleAfter, deepSleepAfter, checkpointEvery, awakeWhile = "requests" } = policy ?? {};
  if (idleAfter === undefined || deepSleepAfter === undefined || checkpointEvery === undefined) return undefined;
  return { idleAfter, deepSleepAfter, checkpointEvery, awakeWhile };
}

function asNew(
  made: CreatedShape,
  { name = null, metadata = {} }: Pick<UpdateSession, "name" | "metadata">,
): KnownShape {
  return {
    existed: false,
    name,
    lastActive: made.createdAt,
    state: "active",
    activeProcesses: 0,
    metadata: metadata ?? {},
    checkpointedAt: null,
    ...made,
  };
}
