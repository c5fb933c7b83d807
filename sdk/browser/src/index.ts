import { browser } from "./browser.js";
import { createCore } from "./core.js";
import { CounterfoilError } from "./errors.js";
import type { BrowserSession, Options } from "./types.js";

/**
 * Keeps the session of this browser: one call for a page. It begins to ask the authority at once. The access token lives
 * in memory only; the session itself is in a cookie that no script can read.
 */
export function createSession(options: Options = {}): BrowserSession {
  if (typeof location !== "object") throw new CounterfoilError("invalid_request", "createSession needs a browser; on a server use @counterfoil/browser/server");
  return createCore(browser(options.authority ?? "/auth"), options);
}

export { CounterfoilError };
export type { Code, Details, EndCode } from "./errors.js";
export type { BrowserSession, Challenge, Credentials, Options, Session, State, Which } from "./types.js";
