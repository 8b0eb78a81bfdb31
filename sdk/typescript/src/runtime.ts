/**
 * Detects the runtime: Bun, Node or a browser. Gets Node's modules at run time instead of importing them, so that
 * bundlers for browsers have nothing to resolve.
 */

interface Modules {
  "node:http": typeof import("node:http");
  "node:https": typeof import("node:https");
  "node:net": typeof import("node:net");
  "node:tls": typeof import("node:tls");
  "node:fs": typeof import("node:fs");
  "node:fs/promises": typeof import("node:fs/promises");
}

interface Process {
  env?: Record<string, string | undefined>;
  versions?: Record<string, string | undefined>;
  getBuiltinModule?(name: string): unknown;
}

function process(): Process {
  return (globalThis as { process?: Process }).process ?? {};
}

export function isNode(): boolean {
  const versions = process().versions ?? {};
  return versions.node !== undefined && versions.bun === undefined && !("Deno" in globalThis);
}

export function isBrowser(): boolean {
  return process().versions?.node === undefined;
}

/** Returns undefined in browsers, and in Node before 20.16. */
export function builtin<Name extends keyof Modules>(name: Name): Modules[Name] | undefined {
  return process().getBuiltinModule?.(name) as Modules[Name] | undefined;
}

export function environment(name: string): string | undefined {
  return process().env?.[name] || undefined;
}
