/** What the server accepts and returns for the account and its keys, as JSON. */

import type { ResourceLimits } from "./shapes.js";

/** What a key may do. */
export type Scope =
  "sessions:read" | "sessions:write" | "account:read" | "account:write" | "secrets:use" | "secrets:write" | "operator";

/** The key that a client sends. */
export interface OwnKey {
  keyId: string;
  name: string | null;
  /** What it may do. */
  scopes: Scope[];
  /** Null if it does not expire. */
  expiresAt: string | null;
}

export interface Key extends OwnKey {
  /** The first characters of the secret, to tell keys apart. */
  hint: string;
  createdAt: string;
}

export interface MadeKey extends Key {
  /** The secret, which a client takes as `apiKey`. The server does not show it again. */
  key: string;
}

export interface CreateKey {
  /** 1 to 100 characters; need not be unique. */
  name?: string | undefined;
  /** None beyond those of your own key, which are the default. */
  scopes?: readonly Scope[] | undefined;
  /** Seconds until it expires, no later than your own key. By default when yours does, or never. */
  expiresIn?: number | undefined;
}

/** What the plan allows. */
export interface AccountLimits {
  /** At a time, sleeping ones included. */
  sessions: number;
  /** Seconds of a session, or `"never"`. */
  longestTtl: number | "never";
  shortestTtl: number;
  /** With one key. */
  requestsPerMinute: number;
  /** MB of a single file inside JSON. */
  fileMegabytes: number;
  filesPerRequest: number;
  /** MB of a JSON body. */
  bodyMegabytes: number;
  snapshots: number;
  /** GB that snapshots and images alone may keep. */
  snapshotGigabytes: number;
  forkCount: number;
  images: number;
  /** Valid ones at a time. */
  keys: number;
  webhooks: number;
  maySetResourceLimits: boolean;
  /** The longest `idleAfter` of a session's `sleepPolicy`. */
  idleAfterMost: number | "never";
  /** The longest `deepSleepAfter`. */
  deepSleepAfterMost: number | "never";
  /** Whether `awakeWhile` may be `processes`. */
  mayAwaitProcesses: boolean;
  defaultResourceLimits: ResourceLimits;
  mostResourceLimits: ResourceLimits;
}

/** How many there are now. */
export interface AccountUsage {
  sessions: number;
  snapshots: number;
  /** Those of the account itself. */
  images: number;
}

export interface Account {
  accountId: string;
  /** The plan's name. */
  plan: string;
  limits: AccountLimits;
  usage: AccountUsage;
  /** The key that the client sends. */
  key: OwnKey;
}
