import { compactVerify } from "jose";
import { parseClaims, type Claims } from "./claims.js";
import { systemClock, type Clock, type Logger } from "./clock.js";
import { CounterfoilError, textOf } from "./errors.js";
import type { FeedStatus } from "./follow.js";
import type { PublicKey } from "./jwks.js";
import type { KeySource } from "./keys.js";
import type { Ask } from "./live.js";
import { Origins } from "./origins.js";
import { credential, type IncomingRequest } from "./request.js";
import type { RevocationTable } from "./revocations.js";
import { compile, type Rules, type Ruleset } from "./rules.js";
import { parseToken, type Algorithm } from "./token.js";
import { WarmTable, type WarmToken } from "./warm.js";
import { leeway, Watches } from "./watch.js";

/** @internal What a verifier stands on. */
export interface Parts {
  issuer: string;
  audience: string | undefined; // undefined: any
  algorithms: readonly Algorithm[] | undefined; // undefined: what the issuer's keys are for
  origins: Origins;
  keys: KeySource;
  revocations: RevocationTable;
  ask: Ask | undefined;
  fallback: ((token: string, claims: Claims, maxAge: number) => Promise<void>) | undefined;
  feed: (() => FeedStatus) | undefined;
  ready: () => boolean;
  wait: (signal: AbortSignal | undefined) => Promise<void>;
  close: () => void;
  clock?: Clock;
  cacheTokens?: number; // 0 when absent
  log: Logger;
}

/** Checks access tokens. `createVerifier` makes one; a process needs one for each issuer and audience. */
export class Verifier {
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #noRules: Ruleset;
  readonly #warm: WarmTable | undefined;
  readonly #watches: Watches;

  /** @internal */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
    this.#noRules = this.#compile({});
    this.#warm = parts.cacheTokens ? new WarmTable(parts.cacheTokens) : undefined;
    this.#watches = new Watches(this.#clock, parts.revocations, (token, rules) => this.check(token, rules));
  }

  #compile(rules: Rules): Ruleset {
    return compile(rules, { ask: this.#parts.ask !== undefined });
  }

  /**
   * Whether there are keys to verify with and, where a feed is followed, all that it retains has come. Until then every
   * token is answered with unavailable.
   */
  get ready(): boolean {
    return this.#parts.ready();
  }

  /** Resolves when the verifier is ready; rejects when the signal ends first. */
  wait(options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#parts.wait(options.signal);
  }

  /** What is known of the feed, for metrics; undefined where none is followed. */
  get feed(): FeedStatus | undefined {
    return this.#parts.feed?.();
  }

  /** How many watches (see `watch`) have not ended, for metrics. */
  get watches(): number {
    return this.#watches.size;
  }

  /** @internal Has all watches looked at, after time has passed that timers did not see. */
  lookAgain(): void {
    this.#watches.lookAll();
  }

  /** Ends background work. Verification goes on with the keys at hand. */
  close(): void {
    this.#parts.close();
  }

  /** Verifies a token. It rejects with a {@link CounterfoilError}. The rule `cookie` has no effect. */
  async check(token: string, rules?: Rules): Promise<Claims> {
    return this.#check(token, rules === undefined ? this.#noRules : this.#compile(rules));
  }

  /** Is `check` with its rules weighed once. It throws a ConfigError for a rule that cannot be kept. */
  checker(rules: Rules): (token: string) => Promise<Claims> {
    const r = this.#compile(rules);
    return (token) => this.#check(token, r);
  }

  /**
   * Makes a function that finds the token of a request and verifies it. The token is taken from the Authorization
   * header, which must be there once, and from nowhere else unless the rule `cookie` says so. It throws a ConfigError
   * for a rule that cannot be kept. Frameworks other than Express and Fastify build on it.
   */
  requestChecker(rules: Rules = {}): (request: IncomingRequest) => Promise<Claims> {
    const r = this.#compile(rules);
    return async (request) => this.#check(credential(request, r.cookie, this.#parts.origins), r);
  }

  async #check(token: string, rules: Ruleset): Promise<Claims> {
    try {
      const claims = this.#recall(token) ?? (await this.#local(token));
      const asked = this.#ask(token, claims, rules);
      if (asked !== undefined) await asked;
      this.#hold(claims, rules);
      return claims;
    } catch (error) {
      this.#parts.log.debug?.(`access token refused: ${textOf(error)}`);
      throw error instanceof CounterfoilError ? error : new CounterfoilError("unavailable", textOf(error), {}, error);
    }
  }

  /**
   * Returns the claims of a token that has been verified before and would be again, without the signature. Otherwise
   * nothing: whatever speaks against the token, the full check finds and says.
   */
  #recall(token: string): Claims | undefined {
    const found = this.#warm?.find(token);
    if (found === undefined) return undefined;
    const now = this.#clock.now();
    if (!(found.from <= now && now < found.until) || !this.#parts.ready()) return undefined;
    const version = this.#parts.revocations.version;
    return found.stamp === version || this.#restamp(found, version) ? found.claims : undefined;
  }

  /** Asks again all that may have changed since the stamp. */
  #restamp(found: WarmToken, version: number): boolean {
    const { revocations, keys } = this.#parts;
    const { kid, print } = found.key;
    const known = revocations.keyRevoked(kid) || revocations.check(found.claims) !== "none" ? undefined : keys.known(kid);
    // Each fetch of the keys makes new ones.
    if (known?.key.print !== print || found.claims.expiresAt - found.claims.issuedAt > known.longest) {
      this.#warm?.drop(found);
      return false;
    }
    found.stamp = version;
    return true;
  }

  /** Keeps a token that has just been verified. The version is that of before its key was looked up. */
  #remember(token: string, claims: Claims, notBefore: number, key: PublicKey, stamp: number): void {
    this.#watches.vouch(claims, key.kid);
    const from = (Math.max(claims.issuedAt, notBefore) - leeway) * 1000;
    const until = (claims.expiresAt + leeway) * 1000;
    this.#warm?.insert(token, { claims, key, from, until, stamp }, this.#clock.now());
  }

  /** Checks all that the token and this process know. */
  async #local(token: string): Promise<Claims> {
    const parts = this.#parts;
    const { parsed, claims, notBefore } = malformedIsInvalid(() => {
      const parsed = parseToken(token);
      return { parsed, ...parseClaims(parsed.claims, parsed.payload) };
    });
    // A key is a key of one issuer: the issuer first.
    if (claims.issuer !== parts.issuer) throw invalid("iss is not the configured issuer");
    if (parts.revocations.keyRevoked(parsed.kid)) throw invalid("revoked kid");
    if (!parts.ready()) throw new CounterfoilError("unavailable", "the verifier is not ready: keys or revocations have not come");
    const version = parts.revocations.version;
    const { key, longest } = parts.keys.known(parsed.kid) ?? (await parts.keys.find(parsed.kid));
    if (key.alg !== parsed.alg) throw invalid("alg is not the key's");
    if (parts.algorithms !== undefined && !parts.algorithms.includes(key.alg)) throw invalid("the key's algorithm is not among the accepted ones");
    try {
      await compactVerify(token, key.key, { algorithms: [key.alg] });
    } catch (error) {
      throw new CounterfoilError("token_invalid", "the signature does not verify", {}, error);
    }
    // Time has passed: what was revoked meanwhile counts.
    if (parts.revocations.keyRevoked(parsed.kid)) throw invalid("revoked kid");
    // The issuer has said all this. From here on answers may be precise.
    const now = this.#clock.now() / 1000;
    if (parts.audience !== undefined && claims.audience !== parts.audience) throw new CounterfoilError("audience_mismatch");
    if (claims.issuedAt > now + leeway) throw invalid("iat is in the future");
    if (notBefore > now + leeway) throw invalid("nbf is in the future");
    if (claims.expiresAt - claims.issuedAt > longest) throw invalid("exp - iat is beyond what the authority issues");
    if (now >= claims.expiresAt + leeway) throw new CounterfoilError("token_expired");
    switch (parts.revocations.check(claims)) {
      case "revoked":
        throw new CounterfoilError("token_revoked");
      case "stale":
        throw new CounterfoilError("token_stale");
      case "none":
        this.#remember(token, claims, notBefore, key, version);
        return claims;
    }
  }

  /** Asks the authority where the rules of the route want it; undefined where they do not. */
  #ask(token: string, claims: Claims, rules: Ruleset): Promise<void> | undefined {
    const { ask, fallback, feed } = this.#parts;
    let live = rules.live;
    if (claims.degraded && (live || rules.noDegraded || rules.maxFeedAge !== Infinity)) {
      throw new CounterfoilError("token_too_old", "the authority was cut off from its store when it minted the token");
    }
    if (!live && this.#clock.now() - claims.issuedAt * 1000 > rules.maxTokenAge) {
      if (ask === undefined || rules.refreshWhenOld || claims.degraded) throw new CounterfoilError("token_too_old");
      live = true;
    }
    if (live) return ask!(token, claims);
    if (rules.maxFeedAge !== Infinity && (feed?.().age ?? Infinity) > rules.maxFeedAge) {
      return fallback!(token, claims, rules.maxFeedAge);
    }
    return undefined;
  }

  /** Checks the other rules. What a step-up can mend comes before what it cannot. */
  #hold(claims: Claims, rules: Ruleset): void {
    if (rules.maxAuthAge !== Infinity) {
      const age = claims.authTime === undefined ? NaN : this.#clock.now() / 1000 - claims.authTime;
      if (!(age <= rules.maxAuthAge && age >= -leeway)) {
        throw new CounterfoilError("insufficient_user_authentication", "auth_time is missing or too far back", { maxAge: rules.maxAuthAge });
      }
    }
    if (!rules.scope.every((s) => claims.scope.includes(s))) {
      throw new CounterfoilError("insufficient_scope", "a scope is missing", { scope: rules.scope });
    }
    if (!rules.roles.every((role) => claims.roles.includes(role))) throw new CounterfoilError("insufficient_scope", "a role is missing");
  }
}

function invalid(reason: string): CounterfoilError {
  return new CounterfoilError("token_invalid", reason);
}

function malformedIsInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new CounterfoilError("token_invalid", textOf(error));
  }
}
