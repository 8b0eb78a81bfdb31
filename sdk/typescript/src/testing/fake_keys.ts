/** The fake account: its plan, and its API keys. The fake accepts every key. */

import type { Account, AccountLimits, AccountUsage, CreateKey, Key, MadeKey, Scope } from "../account_shapes.js";
import { refuse } from "./answers.js";
import { stamp, type Clock } from "./fake_session.js";
import { pageOf } from "./file_routes.js";

const LONGEST_NAME = 100;
const SCOPES: readonly Scope[] = [
  "sessions:read",
  "sessions:write",
  "account:read",
  "account:write",
  "secrets:use",
  "secrets:write",
];
const LIMITS: AccountLimits = {
  sessions: 100,
  longestTtl: 604_800,
  shortestTtl: 300,
  requestsPerMinute: 1000,
  fileMegabytes: 50,
  filesPerRequest: 1000,
  bodyMegabytes: 256,
  snapshots: 100,
  snapshotGigabytes: 50,
  forkCount: 100,
  images: 50,
  keys: 100,
  webhooks: 10,
  maySetResourceLimits: true,
  idleAfterMost: 3600,
  deepSleepAfterMost: 604_800,
  mayAwaitProcesses: true,
  defaultResourceLimits: { memory: 1024, cpu: 0.25, timeout: 30, disk: 1024 },
  mostResourceLimits: { memory: 4096, cpu: 1, timeout: 300, disk: 5120 },
};

export class FakeKeys {
  readonly #kept = new Map<string, Key>();
  readonly #own: Key;

  constructor(
    private readonly clock: Clock,
    private readonly newId: (kind: string) => string,
  ) {
    this.#own = this.#add(null, SCOPES);
  }

  account(usage: AccountUsage): Account {
    const { keyId, name, scopes, expiresAt } = this.#own;
    const key = { keyId, name, scopes, expiresAt };
    return { accountId: "acc_0000000000000001", plan: "paid", limits: LIMITS, usage, key };
  }

  create({ name, scopes = SCOPES, expiresIn }: CreateKey): MadeKey {
    if (name !== undefined && (name.length < 1 || name.length > LONGEST_NAME)) {
      const message = `name must be 1 to ${LONGEST_NAME} printable characters.`;
      refuse("invalid_request", message, { field: "name", limit: LONGEST_NAME });
    }
    if (expiresIn !== undefined && expiresIn < 1)
      refuse("invalid_request", "expiresIn must be at least 1.", { field: "expiresIn" });
    if (scopes.length === 0 || !scopes.every((scope) => scope === "operator" || SCOPES.includes(scope)))
      refuse("invalid_request", "scopes must name scopes.", { field: "scopes" });
    if (scopes.includes("operator")) {
      const message = "Only the server's command line makes keys with the scope operator.";
      refuse("forbidden", message, { scope: "operator" });
    }
    const key = this.#add(name ?? null, scopes, expiresIn);
    return { ...key, key: `btk_${key.keyId.slice("key_".length).padEnd(38, "0")}` };
  }

  list(query: Record<string, string>): unknown {
    const valid = [...this.#kept.values()].filter((key) => !this.#isExpired(key));
    const { items, total } = pageOf(valid, query);
    return { keys: items, total };
  }

  /** Returns the key that it was. */
  delete(keyId: string): Key {
    const key = this.#kept.get(keyId);
    if (key === undefined || this.#isExpired(key))
      refuse("key_not_found", "No key with this id. It may have been revoked, or have expired.", { keyId });
    this.#kept.delete(keyId);
    return key;
  }

  #add(name: string | null, scopes: readonly Scope[], expiresIn?: number): Key {
    const [number, now] = [this.newId("key").slice(-12), this.clock()];
    const key = {
      keyId: `key_${number}`,
      name,
      scopes: SCOPES.filter((scope) => scopes.includes(scope)),
      expiresAt: expiresIn === undefined ? null : stamp(now, expiresIn),
      hint: `btk_${number.slice(0, 4)}`,
      createdAt: stamp(now),
    };
    this.#kept.set(key.keyId, key);
    return key;
  }

  #isExpired({ expiresAt }: Key): boolean {
    return expiresAt !== null && this.clock().getTime() >= Date.parse(expiresAt);
  }
}
