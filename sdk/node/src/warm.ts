import type { Claims } from "./claims.js";
import { Heap, type Placed } from "./heap.js";
import type { PublicKey } from "./jwks.js";

/** The memory of one token, in bytes: what is allotted for each of `cacheTokens`. */
export const tokenBudget = 4096;

// How much of a token's end is hashed. It is signature, so nobody chooses it.
const tailLength = 64;

/** A token that was verified. All but the stamp never changes. */
export interface WarmToken extends Placed {
  readonly tail: string;
  readonly text: string;
  readonly claims: Claims;
  readonly key: PublicKey;
  /** It serves from <= now < until, in milliseconds since 1970, leeway included. */
  readonly from: number;
  readonly until: number;
  readonly size: number; // bytes
  /** A version of the revocations under which nothing was known against it. It was read before the key was looked up. */
  stamp: number;
}

/**
 * Remembers tokens that have been verified, so that the next request with one costs a lookup, a look at the time and one
 * at the version of the revocations.
 *
 * Only verified tokens come in, so nobody without a signature of the issuer can take memory or push others out. All that
 * is kept fits into the budget; beyond it the expired go first, then the next to expire. The end of a token finds it, the
 * whole text decides.
 */
export class WarmTable {
  readonly #tokens = new Map<string, WarmToken>(); // by tail
  readonly #leaving = new Heap<WarmToken>((a, b) => a.until < b.until);
  readonly #budget: number;
  #used = 0;

  constructor(tokens: number) {
    this.#budget = tokens * tokenBudget;
  }

  /** How many tokens there are. */
  get size(): number {
    return this.#tokens.size;
  }

  /** The bytes they take, as they are counted. */
  get used(): number {
    return this.#used;
  }

  find(token: string): WarmToken | undefined {
    const found = this.#tokens.get(token.slice(-tailLength));
    return found !== undefined && found.text === token ? found : undefined;
  }

  /** Adds a token that has just been verified. */
  insert(token: string, t: Pick<WarmToken, "claims" | "key" | "from" | "until" | "stamp">, now: number): void {
    if (token.length < tailLength) return;
    const size = footprint(token, t.claims);
    if (size > this.#budget) return;
    // A text of its own: the token may be part of a long header.
    const text = Buffer.from(token, "latin1").toString("latin1");
    const entry: WarmToken = { ...t, text, tail: text.slice(-tailLength), size, place: -1 };
    const old = this.#tokens.get(entry.tail);
    if (old !== undefined) this.drop(old);
    this.#tokens.set(entry.tail, entry);
    this.#leaving.push(entry);
    this.#used += size;
    // More leave than come, and no request pays for a great many.
    let free = 2;
    for (let first = this.#leaving.first; first !== undefined; first = this.#leaving.first) {
      const expired = first.until <= now && free-- > 0;
      if (!expired && this.#used <= this.#budget) return;
      this.drop(first);
    }
  }

  drop(entry: WarmToken): void {
    if (this.#tokens.get(entry.tail) !== entry) return;
    this.#tokens.delete(entry.tail);
    this.#leaving.remove(entry);
    this.#used -= entry.size;
  }
}

/** The memory that an entry takes, in bytes, on the high side: itself and its places, its text, and its claims. */
function footprint(token: string, claims: Claims): number {
  const entry = 900;
  return entry + token.length + weight(claims.payload, 0) + claims.roles.length * 16 + claims.scope.length * 48;
}

function weight(value: unknown, depth: number): number {
  if (typeof value === "string") return 32 + 2 * value.length;
  if (typeof value !== "object" || value === null || depth > 32) return 16;
  let sum = 64;
  for (const [name, member] of Object.entries(value)) sum += 48 + name.length + weight(member, depth + 1);
  return sum;
}
