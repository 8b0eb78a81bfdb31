/** Where the server is and which key it gets, checked before the first request. */

import { InvalidRequest, Unauthorized } from "./errors.js";
import { environment } from "./runtime.js";

const KEY = /^btk_[0-9A-Za-z_]{1,250}$/;
const DEFAULT_URL = "http://localhost:8000";

/** Throws `Unauthorized` when the key is missing, empty or malformed. Never shows it, since it is secret. */
export function checkedKey(given: string | undefined): string {
  if (given?.trim() === "")
    // never the environment's: it may be another account's
    throw new Unauthorized("apiKey is empty. Leave it out to use BUNTIME_API_KEY.", {
      code: "unauthorized",
      details: { field: "apiKey" },
    });
  const key = (given || environment("BUNTIME_API_KEY") || "").trim(); // a file's content ends with a line break
  if (key === "")
    throw new Unauthorized("There is no API key: pass apiKey or set BUNTIME_API_KEY.", { code: "unauthorized" });
  if (!KEY.test(key))
    throw new Unauthorized("The API key is malformed: keys are btk_ followed by letters and digits.", {
      code: "unauthorized",
    });
  return key;
}

/** Throws `InvalidRequest` when the URL is malformed. */
export function checkedUrl(given: string | undefined): string {
  const url = (given ?? (environment("BUNTIME_URL") || DEFAULT_URL)).trim().replace(/\/+$/, "");
  if (isBase(url)) return url;
  throw new InvalidRequest(`baseUrl must be a URL such as http://localhost:8000, not ${JSON.stringify(url)}.`, {
    code: "invalid_request",
    details: { field: "baseUrl" },
  });
}

/** Whether it has a scheme and a host, and nothing after the path. */
function isBase(text: string): boolean {
  if (!/^https?:\/\/[^/]/.test(text) || /[\s\\?#]/.test(text) || !URL.canParse(text)) return false;
  return !/^https?:\/\/[^/]*@/.test(text);
}
