import { asInteger, asString, foldsTo, type Json, type JsonObject } from "./json.js";

/**
 * What a verified access token says (RFC 9068). Times are in Unix seconds. It is frozen, payload and all: requests with one
 * token share it.
 */
export interface Claims {
  readonly issuer: string; // iss
  readonly subject: string; // sub
  readonly audience: string; // aud
  readonly clientId: string; // client_id: the application
  readonly sessionId: string; // sid
  readonly tokenId: string; // jti
  readonly issuedAt: number; // iat
  readonly expiresAt: number; // exp
  /** auth_time: when the user last proved who they are. */
  readonly authTime?: number;
  /** amr: how (RFC 8176). */
  readonly methods: readonly string[];
  /** The subject's epoch that the token was minted under. */
  readonly epoch: number;
  readonly roles: readonly string[];
  readonly scope: readonly string[];
  /** degraded: the authority was cut off from its store and minted from what it had read at issuedAt. */
  readonly degraded: boolean;
  /** All claims as they stand in the token, the application's own among them. */
  readonly payload: Readonly<Record<string, unknown>>;
}

// The names that Counterfoil gives a meaning to or keeps for one. A claim that folds to one of them without being it
// says two things to two readers.
const reserved = new Set(
  (
    "iss sub aud exp nbf iat jti client_id scope auth_time acr amr azp nonce at_hash c_hash s_hash act may_act " +
    "sid events sub_id toe txn cnf htm htu ath authorization_details status active token_type epoch roles degraded " +
    "alg typ kid crit jku jwk x5u x5c x5t b64 cty"
  ).split(" "),
);

/** Claims and what holds before they may be used. */
export interface ParsedClaims {
  claims: Claims;
  notBefore: number; // 0: not told
}

/**
 * Reads the payload of a token. It is called before the signature is checked, since the issuer decides which keys are
 * looked at, and trusts nothing. It insists on types and on what no token may lack; whether the values are good is for
 * later. It throws an Error that names the claim.
 */
export function parseClaims(members: JsonObject, text: string): ParsedClaims {
  for (const name of members.keys()) {
    const folded = foldsTo(name);
    if (folded !== name && reserved.has(folded)) throw new Error("a claim name folds to a reserved one");
  }
  if (members.has("cnf")) throw new Error("claim cnf: the token is bound to its sender, which this verifier cannot check");
  const need = <T>(name: string, read: (value: Json) => T): T => {
    const value = members.get(name);
    if (value === undefined) throw new Error(`claim ${name} is missing`);
    try {
      return read(value);
    } catch (error) {
      throw new Error(`claim ${name}: ${error instanceof Error ? error.message : "wrong"}`);
    }
  };
  const may = <T>(name: string, read: (value: Json) => T, otherwise: T): T => (members.has(name) ? need(name, read) : otherwise);

  const claims: Claims = {
    issuer: need("iss", text1),
    subject: need("sub", text1),
    audience: need("aud", audience),
    clientId: need("client_id", text1),
    // A token without sid is a machine's. User routes take none.
    sessionId: need("sid", text1),
    tokenId: need("jti", text1),
    issuedAt: need("iat", instant),
    expiresAt: need("exp", instant),
    ...(members.has("auth_time") ? { authTime: need("auth_time", instant) } : {}),
    methods: Object.freeze(may("amr", texts, [])),
    epoch: need("epoch", epoch),
    roles: Object.freeze(may("roles", texts, [])),
    scope: Object.freeze(may("scope", scope, [])),
    degraded: may("degraded", flag, false),
    // The text was checked to have one meaning, so this reader sees what that one saw.
    payload: frozen(JSON.parse(text) as Record<string, unknown>),
  };
  if (claims.issuedAt >= claims.expiresAt) throw new Error("claim exp is not after iat");
  return { claims: Object.freeze(claims), notBefore: may("nbf", instant, 0) };
}

/** Freezes what a JSON text says, whole. Its depth was bounded when it was read. */
function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(frozen);
    Object.freeze(value);
  }
  return value;
}

/** Reads a string that is not empty. */
function text1(value: Json): string {
  const s = asString(value);
  if (s === "") throw new Error("empty");
  return s;
}

function flag(value: Json): boolean {
  if (typeof value !== "boolean") throw new Error("want true or false");
  return value;
}

function texts(value: Json): string[] {
  if (!Array.isArray(value)) throw new Error("want an array");
  return value.map(text1);
}

/** Reads a string or an array of one: a token for several services would let each of them act at the others. */
function audience(value: Json): string {
  if (typeof value === "string") return text1(value);
  const [one, ...more] = texts(value);
  if (one === undefined || more.length > 0) throw new Error("want one audience");
  return one;
}

const lastInstant = 253402300799; // the end of the year 9999

function instant(value: Json): number {
  const s = asInteger(value);
  if (s <= 0 || s > lastInstant) throw new Error("not a time in Unix seconds");
  return s;
}

function epoch(value: Json): number {
  const n = asInteger(value);
  if (n < 0 || !Number.isSafeInteger(n)) throw new Error("negative or beyond 2^53");
  return n;
}

/** Reads scope tokens divided by single spaces (RFC 6749 section 3.3). */
function scope(value: Json): string[] {
  const all = text1(value).split(" ");
  if (!all.every(isScopeToken)) throw new Error("not scope tokens divided by single spaces");
  return all;
}

export function isScopeToken(s: string): boolean {
  return /^[!#-[\]-~]+$/.test(s);
}
