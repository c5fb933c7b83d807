import { importJWK, type JWK, type KeyLike } from "jose";
import { asInteger, asString, foldsTo, parseObject, type JsonObject } from "./json.js";
import { decodeBase64url, isAlgorithm, validKid, type Algorithm } from "./token.js";

const maxKeys = 100;
const minRSA = 2048; // bits
const maxRSA = 8192;

/** A key bound to one key id and one algorithm. */
export interface PublicKey {
  readonly kid: string;
  readonly alg: Algorithm;
  readonly key: KeyLike | Uint8Array;
  /** What it is, as text: each fetch makes a new key. */
  readonly print: string;
}

/** The public keys of one issuer at one time. */
export interface KeySet {
  version: number; // cf_version; 0 when absent
  keys: PublicKey[];
}

const privateMembers = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
const textMembers = ["kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"];
const exactMembers = new Set([...privateMembers, ...textMembers, "key_ops"]);

/**
 * Reads a key set (RFC 7517). A key is skipped when its kty, crv, alg or use is unknown here or its alg is missing, since
 * later issuers may publish such keys and a key without an algorithm could be taken for two (RFC 8725 section 3.1). The
 * whole set is refused when a key for one of our algorithms is malformed, weak, or contradicts itself, when two keys
 * share a key id, and when any key holds private or symmetric material. Errors hold no key material.
 */
export async function parseKeySet(text: string): Promise<KeySet> {
  const document = parseObject(text);
  for (const name of document.keys()) {
    const folded = foldsTo(name);
    if (folded !== name && (folded === "keys" || folded === "cf_version")) throw new Error(`a member differs from ${folded} only by case`);
  }
  const set: KeySet = { version: document.has("cf_version") ? asInteger(document.get("cf_version")) : 0, keys: [] };
  if (set.version < 0) throw new Error("cf_version: negative");
  const list = document.get("keys");
  if (!Array.isArray(list)) throw new Error("keys is missing, or no array");
  if (list.length > maxKeys) throw new Error(`more than ${maxKeys} keys`);
  const seen = new Set<string>();
  for (const [i, value] of list.entries()) {
    try {
      if (!(value instanceof Map)) throw new Error("want an object");
      const kid = checkMembers(value);
      const key = await parseKey(value, kid);
      if (kid !== "" && seen.has(kid)) throw new Error("kid: the same as that of another key");
      seen.add(kid);
      if (key !== undefined) set.keys.push(key);
    } catch (error) {
      throw new Error(`keys[${i}]: ${error instanceof Error ? error.message : "wrong"}`);
    }
  }
  return set;
}

function checkMembers(jwk: JsonObject): string {
  for (const [name, value] of jwk) {
    const folded = foldsTo(name);
    if (privateMembers.includes(name)) throw new Error(`${name}: private or symmetric key material in a public key set`);
    if (folded !== name && exactMembers.has(folded)) throw new Error(`a member differs from ${folded} only by case`);
    if (textMembers.includes(name)) asString(value);
    if (name === "key_ops" && !(Array.isArray(value) && value.every((op) => typeof op === "string"))) throw new Error("key_ops: want strings");
  }
  return text(jwk, "kid");
}

function text(jwk: JsonObject, name: string): string {
  return jwk.has(name) ? asString(jwk.get(name)) : "";
}

/** Returns undefined for a key to skip. */
async function parseKey(jwk: JsonObject, kid: string): Promise<PublicKey | undefined> {
  const kty = text(jwk, "kty");
  if (kty === "") throw new Error("kty: missing or empty");
  if (kty === "oct") throw new Error("kty: a symmetric key in a public key set");
  const alg = text(jwk, "alg");
  const crv = text(jwk, "crv");
  if (!isAlgorithm(alg)) return undefined;
  if (kty === "OKP" && alg === "EdDSA" && crv !== "Ed25519" && crv !== "") return undefined;
  if (!forVerification(jwk)) return undefined;
  const material = read(jwk, alg, kty, crv);
  if (!validKid(kid)) throw new Error("kid is not 1 to 64 of A-Z a-z 0-9 _ -");
  return { kid, alg, key: await importJWK(material, alg), print: JSON.stringify([kid, alg, material]) };
}

/** A key may verify signatures, and nothing else. */
function forVerification(jwk: JsonObject): boolean {
  const ops = jwk.get("key_ops") as string[] | undefined;
  const verifies = ops?.length === 1 && ops[0] === "verify";
  const signature = jwk.get("use") === "sig";
  if (jwk.has("use") && ops !== undefined && signature !== verifies) throw new Error("use and key_ops contradict each other");
  return (!jwk.has("use") || signature) && (ops === undefined || verifies);
}

function read(jwk: JsonObject, alg: Algorithm, kty: string, crv: string): JWK {
  const want = { ES256: ["EC", "P-256"], EdDSA: ["OKP", "Ed25519"], RS256: ["RSA", ""], PS256: ["RSA", ""] }[alg];
  if (kty !== want[0]) throw new Error(`kty: ${alg} wants ${want[0]}`);
  if (crv !== want[1]) throw new Error(`crv: ${alg} wants ${JSON.stringify(want[1])}`);
  switch (alg) {
    case "ES256":
      return { kty, crv, x: coordinate(jwk, "x"), y: coordinate(jwk, "y") };
    case "EdDSA": {
      const x = coordinate(jwk, "x");
      if (smallOrder(decodeBase64url(x))) throw new Error("x: an Ed25519 key of small order");
      return { kty, crv, x };
    }
    default: {
      const n = text(jwk, "n");
      const bytes = decodeBase64url(n);
      if (bytes.length === 0 || bytes[0] === 0) throw new Error("n: missing, or a leading zero byte");
      const modulus = BigInt("0x" + bytes.toString("hex"));
      const bits = modulus.toString(2).length;
      if (text(jwk, "e") !== "AQAB") throw new Error("e: the exponent is not 65537");
      if (bits < minRSA || bits > maxRSA) throw new Error(`n: ${bits} bits, want ${minRSA} to ${maxRSA}`);
      if (modulus % 2n === 0n) throw new Error("n: the modulus is even");
      if (roca(modulus)) throw new Error("n: of the ROCA kind (CVE-2017-15361)");
      return { kty, n, e: "AQAB" };
    }
  }
}

/** Reads canonical base64url of 32 bytes. */
function coordinate(jwk: JsonObject, name: string): string {
  const value = text(jwk, name);
  if (decodeBase64url(value).length !== 32) throw new Error(`${name}: want 32 bytes`);
  return value;
}

// The y coordinates, little-endian, of the points of order 1, 2, 4 and 8 on the curve of Ed25519, with the spellings
// that are not reduced. A signature by such a key can be made to fit any message.
const smallOrderY = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

function smallOrder(key: Buffer): boolean {
  const y = Buffer.from(key);
  y[31]! &= 0x7f; // the sign of x
  return smallOrderY.has(y.toString("hex"));
}

/**
 * Whether n has the fingerprint of the Infineon key generator whose keys can be factored: modulo every small prime it is
 * a power of 65537. A good key looks so once in many millions.
 */
function roca(n: bigint): boolean {
  for (let p = 3; p < 168; p += 2) {
    if (!prime(p)) continue;
    const rest = Number(n % BigInt(p));
    let power = 1;
    let found = false;
    for (let i = 0; i < p && !found; i++) {
      found = power === rest;
      power = (power * (65537 % p)) % p;
    }
    if (!found) return false;
  }
  return true;
}

function prime(p: number): boolean {
  for (let d = 3; d * d <= p; d += 2) {
    if (p % d === 0) return false;
  }
  return true;
}
