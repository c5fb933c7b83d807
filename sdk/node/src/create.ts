import type { Agent } from "node:http";
import { consoleLogger, systemClock, type Clock, type Logger } from "./clock.js";
import { ConfigError } from "./errors.js";
import { Follower } from "./follow.js";
import { Client } from "./http.js";
import { RemoteKeys } from "./keys.js";
import { Asker, FallbackAsker, introspection } from "./live.js";
import { Origins } from "./origins.js";
import { RevocationTable } from "./revocations.js";
import { isAlgorithm, type Algorithm } from "./token.js";
import { Verifier } from "./verifier.js";

const mostTokens = 1_000_000;
const startWait = 10_000; // how long createVerifier waits until it is ready

/** What a verifier needs to know. issuer and audience are required; the rest has good defaults. */
export interface VerifierOptions {
  /** What the iss of every token must be, character by character. */
  issuer: string;
  /** The name of this service: what the aud of every token must be. */
  audience?: string;
  /**
   * The address to fetch keys from, to follow the feed of, and to ask for live checks, where that is not the issuer's
   * own: an internal address, or a prefix. Plain http is taken: whether the network in between is trusted is the
   * operator's decision.
   */
  authority?: string;
  /**
   * Authenticates the feed and live checks (scope "verify"). Without it revocations are not heard of: tokens then live
   * until they expire.
   */
  apiKey?: string;
  /** Does not follow the feed though there is an apiKey. Revocations are then noticed by live checks only. */
  withoutFeed?: boolean;
  /**
   * Narrows what is accepted. By default each key of the issuer is good for the one algorithm it is published with, so
   * that a change of algorithm needs no change here; a narrowed verifier refuses every token after such a change.
   */
  algorithms?: readonly Algorithm[];
  /** Origins other than the own whose pages may send requests of unsafe methods with a cookie to routes with `cookie`. */
  trustedOrigins?: readonly string[];
  /**
   * How many verified tokens are remembered, so that the next request with one costs a lookup in the place of a signature
   * check. Revocations are felt all the same. Each may take 4 KiB, longer ones count for what they take; beyond that the
   * next to expire go. 0 remembers none. Default: 8192.
   */
  cacheTokens?: number;
  /** Bounds a live check, in seconds. Default: 2. */
  liveTimeout?: number;
  /** How long keys are trusted while the authority cannot be reached, in seconds. Default: a day. */
  maxKeyAge?: number;
  /** Makes the connections to the authority, for instance an https.Agent with a certificate. Default: one of its own. */
  agent?: Agent;
  /** Default: warnings and errors on the console. */
  logger?: Logger;
  /** The time tokens are measured against. For tests. */
  clock?: Clock;
  /** Ends the wait of createVerifier. The verifier goes on getting ready. */
  signal?: AbortSignal;
  /**
   * Takes tokens that were issued for other services of the same issuer. A service that does so can be used with a
   * token stolen at any other. audience must then be left out.
   */
  acceptAnyAudience?: boolean;
}

/**
 * Makes a verifier. It resolves when the verifier is ready, or after ten seconds, whichever is first; if it is not
 * ready it goes on trying, and `ready` and `wait` tell. So a service starts while its authority is down.
 *
 * It rejects with a ConfigError for options that cannot be used, and for an authority that says it is another issuer.
 * Close the verifier when it is no longer needed. It keeps no process alive.
 */
export async function createVerifier(options: VerifierOptions): Promise<Verifier> {
  const o = validate(options);
  const clock = o.clock;
  const client = new Client(o.authority, o.agent);
  const revocations = new RevocationTable(clock);
  const gate = new Gate();

  let ready = false; // once it is, only keys that are too old end it
  const look = () => {
    ready ||= keys.ready && (follower?.ready ?? true);
    if (ready) gate.open();
  };
  const keys: RemoteKeys = new RemoteKeys(o.issuer, o.maxKeyAge, client, clock, o.logger, {
    installed: () => {
      // Not before: now the authority has said that it is the issuer's, and may see the API key.
      if (follower?.started === false) follower.start();
      revocations.advance();
      look();
    },
    foreign: (error) => gate.fail(error),
  });
  const apiKey = o.apiKey;
  const authorize = () => ({ Authorization: `Bearer ${apiKey}` });
  const follower =
    apiKey === undefined || o.withoutFeed
      ? undefined
      : new Follower(client, authorize, revocations, keys, clock, o.logger, look, () => verifier.lookAgain());
  const question = apiKey === undefined ? undefined : introspection(client, apiKey, o.liveTimeout, o.logger);
  const asker = question && new Asker(o.liveTimeout, question);
  const fallback = question && new FallbackAsker(o.liveTimeout, clock, question);

  const verifier = new Verifier({
    issuer: o.issuer,
    audience: o.audience,
    algorithms: o.algorithms,
    origins: o.origins,
    keys,
    revocations,
    ask: asker && ((token, claims) => asker.ask(token, claims)),
    fallback: fallback && ((token, claims, age) => fallback.ask(token, claims, age)),
    feed: follower && (() => follower.status),
    ready: () => ready && keys.ready,
    wait: (signal) => gate.wait(signal),
    close: () => {
      follower?.close();
      keys.close();
      client.close();
      gate.fail(new Error("the verifier was closed"));
    },
    clock,
    cacheTokens: o.cacheTokens,
    log: o.logger,
  });

  keys.start();
  try {
    await gate.wait(o.signal, startWait);
  } catch (error) {
    if (error instanceof ConfigError) {
      verifier.close();
      throw error;
    }
  }
  follower?.background();
  return verifier;
}

/** Is open from the moment at which everything is there, for good. */
class Gate {
  #open!: () => void;
  #fail!: (error: Error) => void;
  readonly #opened = new Promise<void>((open, fail) => {
    this.#open = open;
    this.#fail = fail;
  });

  constructor() {
    this.#opened.catch(() => {}); // whoever waits is told
  }

  open(): void {
    this.#open();
  }

  fail(error: Error): void {
    this.#fail(error);
  }

  async wait(signal?: AbortSignal, ms?: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    let abort = () => {};
    const over = new Promise<never>((_, reject) => {
      abort = () => reject(signal?.reason ?? new Error("aborted"));
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort);
      // This timer keeps the process alive until there is a verifier.
      if (ms !== undefined) timer = setTimeout(() => reject(new Error("not ready in time")), ms);
    });
    try {
      await Promise.race([this.#opened, over]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}

const known = new Set<string>([
  "issuer", "audience", "authority", "apiKey", "withoutFeed", "algorithms", "trustedOrigins", "cacheTokens", "liveTimeout", "maxKeyAge",
  "agent", "logger", "clock", "signal", "acceptAnyAudience",
] satisfies (keyof VerifierOptions)[]);

function validate(o: VerifierOptions) {
  for (const name of Object.keys(o)) {
    if (!known.has(name)) throw new ConfigError(name, "is not an option");
  }
  if (typeof o.issuer !== "string" || o.issuer === "") throw new ConfigError("issuer", "is required: the iss of the tokens to accept");
  const any = o.acceptAnyAudience === true;
  if (any && o.audience !== undefined) throw new ConfigError("acceptAnyAudience", "contradicts audience; leave one of them out");
  if (!any && (typeof o.audience !== "string" || o.audience === "")) {
    throw new ConfigError("audience", "is required: the name of this service, as the authority's audiences have it");
  }
  if (o.algorithms !== undefined && (o.algorithms.length === 0 || !o.algorithms.every(isAlgorithm))) {
    throw new ConfigError("algorithms", "has one that is not ES256, EdDSA, RS256 or PS256, or none");
  }
  // An empty key is an environment variable that was forgotten, and a verifier without revocations would be the result.
  if (o.apiKey !== undefined && !/^[!-~]+$/.test(o.apiKey)) {
    throw new ConfigError("apiKey", "is empty, or has a space, a line end or another character that no API key has");
  }
  const cacheTokens = o.cacheTokens ?? 8192;
  if (!Number.isInteger(cacheTokens) || cacheTokens < 0 || cacheTokens > mostTokens) {
    throw new ConfigError("cacheTokens", `is not a number from 0 to ${mostTokens}`);
  }
  return {
    ...o,
    cacheTokens,
    authority: address(o),
    liveTimeout: milliseconds("liveTimeout", o.liveTimeout, 2),
    maxKeyAge: milliseconds("maxKeyAge", o.maxKeyAge, 24 * 3600),
    origins: new Origins(o.trustedOrigins ?? []),
    logger: o.logger ?? consoleLogger,
    clock: o.clock ?? systemClock,
  };
}

function milliseconds(name: string, seconds: number | undefined, otherwise: number): number {
  if (seconds !== undefined && !(seconds > 0)) throw new ConfigError(name, "is not a positive number of seconds");
  return (seconds ?? otherwise) * 1000;
}

function address(o: VerifierOptions): string {
  const field = o.authority === undefined ? "issuer" : "authority";
  let url: URL;
  try {
    url = new URL(o.authority ?? o.issuer);
  } catch {
    throw new ConfigError(field, "is not a URL"); // which may hold a password
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new ConfigError(field, "is not an http or https URL");
  if (url.username !== "" || url.password !== "") throw new ConfigError(field, "holds a user name or password; use apiKey");
  if (url.search !== "" || url.hash !== "") throw new ConfigError(field, "has a query or fragment");
  return url.href.replace(/\/+$/, "");
}
