import type { Claims } from "./claims.js";
import { later, type Clock } from "./clock.js";
import { CounterfoilError } from "./errors.js";
import { claimsOf } from "./request.js";
import { RevocationTable, type Entry } from "./revocations.js";
import type { Rules } from "./rules.js";

export const leeway = 5; // seconds that clocks may differ. It is fixed, since revocations are kept for just as long

const longestTimer = 2 ** 30; // ms; beyond 2^31 Node takes a timer for one of 1 ms

/**
 * Follows what an access token stands for, from `watch`. It holds little, no timer keeps the process alive, and when it has
 * ended, or was stopped, nothing of it is left.
 */
export interface Watch {
  /** Ends with the token. Its `reason` is a {@link CounterfoilError}, whose `code` says why. */
  readonly signal: AbortSignal;
  /** Of the latest token. */
  readonly claims: Claims;
  /**
   * Takes a fresh access token, which the client has sent over the connection, before the present one expires: the watch
   * goes on for as long as the new one lives. It is verified as `check` does, with the rules of the route if they are
   * given again, and has to be of the same session. When it is refused the watch stays as it was.
   */
  readonly renew: (token: string, rules?: Rules) => Promise<Claims>;
  /** Lets go of all that the watch holds. The signal says nothing from then on. */
  readonly stop: () => void;
}

/**
 * Watches the access token of a request, or of claims, so that a WebSocket, a stream of server-sent events or a long
 * download does not outlive the session that opened it. The signal ends by itself when
 *
 * - the session, the user, the token or the key is revoked, within the lag of the feed: the code is token_revoked;
 * - the user's rights have changed since the token was issued: token_stale. The client connects again with a fresh token;
 * - the token has expired and was not renewed: token_expired.
 *
 * Call `stop` when the connection closes. The request is one that `requireToken` has let through; for others it throws.
 * Claims that a test has made are watched for expiry only.
 *
 * ```js
 * const { signal, stop } = watch(req);
 * res.on("close", stop);
 * signal.addEventListener("abort", () => res.end());
 * ```
 */
export function watch(of: Claims | object): Watch {
  const claims = isClaims(of) ? of : claimsOf(of);
  return (watched.get(claims) ?? nobody).begin(claims);
}

function isClaims(of: Claims | object): of is Claims {
  return watched.has(of) || ("sessionId" in of && "expiresAt" in of);
}

/** Finds what a token's verifier watches by its claims. */
const watched = new WeakMap<object, Watches>();

/** What may end a watch beside time: a session, a subject, a token. Keys and clients have so many tokens, and are revoked so
 * seldom, that all watches are looked at. */
type Named = "s" | "u" | "j";

/** The watches of one verifier that have not ended, found by what may end them. */
export class Watches {
  readonly #all = new Set<OneWatch>();
  readonly #by: Record<Named, Map<string, Set<OneWatch>>> = { s: new Map(), u: new Map(), j: new Map() };
  readonly #kids = new WeakMap<Claims, string>();

  constructor(
    readonly clock: Clock,
    private readonly table: RevocationTable,
    readonly check: (token: string, rules?: Rules) => Promise<Claims>,
  ) {
    table.listen((entries) => this.#heard(entries));
  }

  /** Says that claims were verified here, with the key of that name. */
  vouch(claims: Claims, kid: string): void {
    watched.set(claims, this);
    this.#kids.set(claims, kid);
  }

  get size(): number {
    return this.#all.size;
  }

  begin(claims: Claims): Watch {
    const w = new OneWatch(this, claims);
    this.#all.add(w);
    for (const [kind, id] of namesOf(claims)) this.#add(kind, id, w);
    w.look();
    return w;
  }

  /** Why a token that was good does not hold any longer; undefined where it does. */
  ended(claims: Claims): CounterfoilError | undefined {
    if (this.table.keyRevoked(this.#kids.get(claims) ?? "")) return new CounterfoilError("token_revoked", "revoked kid");
    const verdict = this.table.check(claims);
    if (verdict !== "none") return new CounterfoilError(verdict === "revoked" ? "token_revoked" : "token_stale");
    return this.left(claims) > 0 ? undefined : new CounterfoilError("token_expired");
  }

  /** The milliseconds that the token lives. */
  left(claims: Claims): number {
    return (claims.expiresAt + leeway) * 1000 - this.clock.now();
  }

  /** Finds the watch by its new token from now on. The session and the subject are the same. */
  move(w: OneWatch, from: Claims, to: Claims): void {
    this.#drop("j", from.tokenId, w);
    this.#add("j", to.tokenId, w);
  }

  remove(w: OneWatch): void {
    if (!this.#all.delete(w)) return;
    for (const [kind, id] of namesOf(w.claims)) this.#drop(kind, id, w);
  }

  /** Looks at all of them, when timers may not have run. */
  lookAll(): void {
    for (const w of [...this.#all]) w.look();
  }

  #heard(entries: readonly Entry[]): void {
    if (this.#all.size === 0) return;
    const woken = new Set<OneWatch>();
    for (const e of entries) {
      const found = e.kind === "k" || e.kind === "c" ? this.#all : this.#by[e.kind].get(e.id);
      for (const w of found ?? []) woken.add(w);
    }
    for (const w of woken) w.look();
  }

  #add(kind: Named, id: string, w: OneWatch): void {
    const found = this.#by[kind].get(id);
    if (found === undefined) this.#by[kind].set(id, new Set([w]));
    else found.add(w);
  }

  #drop(kind: Named, id: string, w: OneWatch): void {
    const found = this.#by[kind].get(id);
    found?.delete(w);
    if (found?.size === 0) this.#by[kind].delete(id);
  }
}

function namesOf(claims: Claims): [Named, string][] {
  return [["s", claims.sessionId], ["u", claims.subject], ["j", claims.tokenId]];
}

class OneWatch implements Watch {
  readonly #of: Watches;
  readonly #ending = new AbortController();
  #claims: Claims;
  #over = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(of: Watches, claims: Claims) {
    this.#of = of;
    this.#claims = claims;
  }

  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  get claims(): Claims {
    return this.#claims;
  }

  readonly stop = (): void => {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#of.remove(this);
  };

  readonly renew = async (token: string, rules?: Rules): Promise<Claims> => {
    const claims = await this.#of.check(token, rules);
    const now = this.#claims;
    if (claims.sessionId !== now.sessionId || claims.subject !== now.subject || claims.clientId !== now.clientId) {
      throw new CounterfoilError("token_invalid", "the token is of another session");
    }
    if (this.signal.aborted) throw this.signal.reason;
    if (this.#over) return now;
    // An older one takes nothing away.
    if (claims.epoch > now.epoch || (claims.epoch === now.epoch && claims.expiresAt > now.expiresAt)) {
      this.#of.move(this, now, claims);
      this.#claims = claims;
      this.look();
    }
    return this.#claims;
  };

  /** Ends the watch if its token does not hold now, and otherwise comes back when it has expired. */
  look(): void {
    if (this.#over) return;
    clearTimeout(this.#timer);
    const refused = this.#of.ended(this.#claims);
    if (refused === undefined) {
      // A clock that is not the system's may not run as timers do.
      this.#timer = later(Math.min(Math.max(this.#of.left(this.#claims), 1), longestTimer), () => this.look());
      return;
    }
    this.stop();
    this.#ending.abort(refused);
  }
}

/** Watches claims that come from no verifier. */
const nobody = new Watches({ now: () => Date.now(), monotonic: () => 0 }, new RevocationTable({ now: () => 0, monotonic: () => 0 }), () =>
  Promise.reject(new CounterfoilError("unavailable", "these claims come from no token")),
);
