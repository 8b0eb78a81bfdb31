/** Names under which a write is prepared beside its place. While they exist they are shown to nobody. */

const PREFIX = ".buntime-";

const inUse = new Set<string>();

export function newHiddenName(): string {
  const name = PREFIX + crypto.randomUUID();
  inUse.add(name);
  return name;
}

export function forgetHiddenName(name: string): void {
  inUse.delete(name);
}

export function isHidden(name: string): boolean {
  return inUse.size > 0 && inUse.has(name);
}
