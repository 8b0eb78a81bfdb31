/** Paths of any bytes: strings when they are UTF-8, otherwise the bytes. */

export type Path = string | Buffer;

/** A character of several bytes, in latin1, or a single byte that is no character. */
const CHARACTER = new RegExp(
  [
    /[\xc2-\xdf][\x80-\xbf]/,
    /\xe0[\xa0-\xbf][\x80-\xbf]/,
    /[\xe1-\xec\xee\xef][\x80-\xbf]{2}/,
    /\xed[\x80-\x9f][\x80-\xbf]/,
    /\xf0[\x90-\xbf][\x80-\xbf]{2}/,
    /[\xf1-\xf3][\x80-\xbf]{3}/,
    /\xf4[\x80-\x8f][\x80-\xbf]{2}/,
    /[\x80-\xff]/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "g",
);

/** The bytes as a path. */
export function pathOf(bytes: Buffer): Path {
  const text = bytes.toString("utf8");
  return text.includes("\uFFFD") && !Buffer.from(text).equals(bytes) ? bytes : text;
}

export function bytesOf(path: Path): Buffer {
  return typeof path === "string" ? Buffer.from(path) : path;
}

/** Text for people. */
export function shown(path: Path): string {
  return typeof path === "string" ? path : path.toString("utf8");
}

/** Text that differs whenever the bytes differ: a byte that is not UTF-8 becomes a lone surrogate, U+DC80 to U+DCFF. */
export function distinct(path: Path): string {
  if (typeof path === "string") return path;
  return path
    .toString("latin1")
    .replace(CHARACTER, (part) =>
      part.length > 1 ? Buffer.from(part, "latin1").toString() : String.fromCharCode(0xdc00 + part.charCodeAt(0)),
    );
}

/** The directory that holds it, like `dirname`. */
export function above(path: Path): Path {
  if (typeof path !== "string") return pathOf(Buffer.from(above(path.toString("latin1")) as string, "latin1"));
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

/** The part after the last slash. */
export function nameOf(path: Path): Path {
  if (typeof path === "string") return path.slice(path.lastIndexOf("/") + 1);
  return pathOf(path.subarray(path.lastIndexOf(0x2f) + 1));
}

/** `name` in the directory. */
export function inside(directory: Path, name: Path): Path {
  const slash = shown(directory).endsWith("/") ? "" : "/";
  if (typeof directory === "string" && typeof name === "string") return directory + slash + name;
  return Buffer.concat([bytesOf(directory), Buffer.from(slash), bytesOf(name)]);
}

export function startsWith(path: Path, text: string): boolean {
  return typeof path === "string" ? path.startsWith(text) : path.toString("latin1").startsWith(text);
}

/** A parameter of a URL's query as the bytes that were sent, or null when it is missing. */
export function rawIn(url: string, name: string): Buffer | null {
  const query = url.indexOf("?");
  if (query < 0) return null;
  const pair = url
    .slice(query + 1)
    .split("&")
    .find((each) => each.startsWith(`${name}=`));
  return pair === undefined ? null : unquoted(pair.slice(name.length + 1));
}

function unquoted(text: string): Buffer {
  const bytes = text
    .replaceAll("+", " ")
    .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1");
}
