import { asString, decodeUTF8, parseObject, type JsonObject } from "./json.js";

// jose reads the compact form more kindly than an access token deserves. What is read here has one spelling: a header
// of alg, typ and kid, each once, and nothing else; canonical base64url; JSON with one meaning. jose then checks the
// signature over the text as it was received.

const maxToken = 8 << 10; // characters of the whole
const maxHeader = 1 << 10; // bytes of the decoded header
const tokenType = "at+jwt"; // RFC 9068 section 2.1

/** The algorithms that keys of an issuer may be for. */
export type Algorithm = "ES256" | "EdDSA" | "RS256" | "PS256";

export function isAlgorithm(name: string): name is Algorithm {
  return name === "ES256" || name === "EdDSA" || name === "RS256" || name === "PS256";
}

/** A token that was read but whose signature was not checked: what anybody may have written. */
export interface UnverifiedToken {
  alg: Algorithm;
  kid: string;
  claims: JsonObject;
  payload: string; // JSON text
}

/** Reads everything of a token but its signature. It throws an Error that says what is wrong, and holds no part of it. */
export function parseToken(compact: string): UnverifiedToken {
  if (compact.length > maxToken) throw new Error(`longer than ${maxToken} bytes`);
  const parts = compact.split(".");
  const [header, payload, signature] = parts;
  if (parts.length !== 3 || !header || !payload || !signature) throw new Error("want three parts");
  if (header.length > Math.ceil((maxHeader * 8) / 6)) throw new Error(`header longer than ${maxHeader} bytes`);
  decodeBase64url(signature);
  const { alg, kid } = parseHeader(decodeUTF8(decodeBase64url(header)));
  const text = decodeUTF8(decodeBase64url(payload));
  return { alg, kid, claims: parseObject(text), payload: text };
}

function parseHeader(text: string): { alg: Algorithm; kid: string } {
  const header = parseObject(text);
  for (const name of header.keys()) {
    if (name !== "alg" && name !== "typ" && name !== "kid") throw new Error("header: a member other than alg, typ and kid");
  }
  const alg = asString(header.get("alg"));
  if (!isAlgorithm(alg)) throw new Error("header: alg is not one of ES256, EdDSA, RS256, PS256");
  if (asString(header.get("typ")) !== tokenType) throw new Error(`header: typ is not ${tokenType}`);
  const kid = asString(header.get("kid"));
  if (!validKid(kid)) throw new Error("header: kid is not 1 to 64 of A-Z a-z 0-9 _ -");
  return { alg, kid };
}

export function validKid(kid: string): boolean {
  return /^[A-Za-z0-9_-]{1,64}$/.test(kid);
}

/** Decodes canonical base64url: no padding, no other character, unused bits zero. */
export function decodeBase64url(text: string): Buffer {
  const data = Buffer.from(text, "base64url");
  if (data.toString("base64url") !== text) throw new Error("not base64url");
  return data;
}
