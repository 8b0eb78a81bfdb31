/** Names under which a write is prepared beside its place. While they exist they are shown to nobody. */

const PREFIX = ".buntime-";
const FORM = /^\.buntime-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const REMEMBERED = 4096;

const inUse = new Set<string>();
const replacing = new Set<string>();

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

/** Whether it has their form: for who hears of it when it is not in use any more. */
export function hasHiddenForm(name: string): boolean {
  return name.startsWith(PREFIX) && FORM.test(name);
}

/** It is about to take the place of something. */
export function willReplace(name: string): void {
  replacing.add(name);
  if (replacing.size > REMEMBERED)
    for (const oldest of [...replacing].slice(0, REMEMBERED / 2)) replacing.delete(oldest);
}

/** Whether what was written under this name has taken the place of something. */
export function hasReplaced(name: string): boolean {
  return replacing.has(name);
}
