/** Names under which a write is prepared beside its target. No listing and no watch shows them. */

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

/** Whether a name has their form, also when it is no longer in use. */
export function hasHiddenForm(name: string): boolean {
  return name.startsWith(PREFIX) && FORM.test(name);
}

/** The hidden file is about to replace an existing one. */
export function willReplace(name: string): void {
  replacing.add(name);
  if (replacing.size > REMEMBERED)
    for (const oldest of [...replacing].slice(0, REMEMBERED / 2)) replacing.delete(oldest);
}

/** Whether the file that was written under this name has replaced another. */
export function hasReplaced(name: string): boolean {
  return replacing.has(name);
}
