import { isScopeToken } from "./claims.js";
import { ConfigError } from "./errors.js";

/** The demands of a route beyond a valid token. All hold together. Times are in seconds, and may have a fraction. */
export interface Rules {
  /**
   * The token was issued at most so long ago. For an older one the verifier asks the authority whether it still holds,
   * if it has an API key; otherwise the answer is token_too_old and the client refreshes once. Below some seconds it is
   * `live` that is wanted: clocks differ.
   */
  maxTokenAge?: number;
  /** `maxTokenAge` answers token_too_old even where the verifier could ask the authority. */
  refreshWhenOld?: boolean;
  /** The user proved who they are at most so long ago. Otherwise the answer is the challenge of RFC 9470. */
  maxAuthAge?: number;
  /**
   * What this process knows of revocations is at most so old. While it is older, because the feed is cut or slow, the
   * authority is asked instead, once for that time for each token. If it cannot be asked, the answer is 503. Needs an
   * API key. A healthy feed is some 0.1 to 0.2 seconds behind.
   */
  maxFeedAge?: number;
  /** A role, or all of several. */
  role?: string | readonly string[];
  /** A scope, or all of several. */
  scope?: string | readonly string[];
  /**
   * Asks the authority about every request, after the local check. Nothing is cached; requests that come at the same
   * time share a question only if it was not sent yet. If it cannot be asked, the answer is 503. Needs an API key.
   */
  live?: boolean;
  /**
   * Refuses tokens of degraded minting, which an authority that is cut off from its store may issue where its operator
   * has switched that on: they say what was true when it last read the session, up to some minutes ago. `live` and
   * `maxFeedAge` refuse them too. The answer is token_too_old: the client refreshes once, and gets a good one if the
   * authority's store is back.
   */
  noDegraded?: boolean;
  /**
   * Takes the access token from the cookie __Host-counterfoil-at also, for pages that work without JavaScript. The
   * Authorization header comes first. Requests of unsafe methods that bring the cookie from another origin are refused.
   */
  cookie?: boolean;
}

/** @internal Rules that were checked. */
export interface Ruleset {
  maxTokenAge: number; // milliseconds; Infinity for none
  maxAuthAge: number; // seconds; Infinity for none
  maxFeedAge: number; // milliseconds; Infinity for none
  roles: readonly string[];
  scope: readonly string[];
  live: boolean;
  cookie: boolean;
  refreshWhenOld: boolean;
  noDegraded: boolean;
}

const known = new Set(["maxTokenAge", "refreshWhenOld", "maxAuthAge", "maxFeedAge", "role", "scope", "live", "noDegraded", "cookie"]);

/** @internal Checks rules, and throws a ConfigError for one that this verifier cannot keep. */
export function compile(rules: Rules, can: { ask: boolean }): Ruleset {
  for (const name of Object.keys(rules)) {
    // A misspelled rule would be a route with one rule less.
    if (!known.has(name)) throw new ConfigError(name, "is not a rule");
  }
  const flag = (name: "refreshWhenOld" | "live" | "noDegraded" | "cookie"): boolean => {
    const value = rules[name];
    if (value !== undefined && typeof value !== "boolean") throw new ConfigError(name, "is neither true nor false");
    return value === true;
  };
  const r: Ruleset = {
    maxTokenAge: 1000 * age("maxTokenAge", rules.maxTokenAge),
    maxAuthAge: age("maxAuthAge", rules.maxAuthAge),
    maxFeedAge: 1000 * age("maxFeedAge", rules.maxFeedAge),
    roles: names("role", rules.role),
    scope: names("scope", rules.scope),
    live: flag("live"),
    cookie: flag("cookie"),
    refreshWhenOld: flag("refreshWhenOld"),
    noDegraded: flag("noDegraded"),
  };
  for (const s of r.scope) {
    if (!isScopeToken(s)) throw new ConfigError("scope", `${JSON.stringify(s)} is not one scope token; name each by itself`);
  }
  if (r.live && !can.ask) throw new ConfigError("live", "needs a verifier that can ask the authority; give it an apiKey");
  if (r.maxFeedAge !== Infinity && !can.ask) {
    throw new ConfigError("maxFeedAge", "needs a verifier that follows the feed and can ask the authority; give it an apiKey");
  }
  return r;
}

function age(name: string, seconds: number | undefined): number {
  if (seconds === undefined) return Infinity;
  if (typeof seconds !== "number" || !(seconds > 0)) throw new ConfigError(name, "is not a positive number of seconds");
  return seconds;
}

function names(rule: string, value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return [];
  const all = typeof value === "string" ? [value] : [...value];
  if (all.length === 0 || !all.every((name) => typeof name === "string" && name !== "")) {
    throw new ConfigError(rule, "names nothing");
  }
  return Object.freeze([...new Set(all)]);
}
