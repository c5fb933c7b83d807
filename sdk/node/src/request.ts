import type { Claims } from "./claims.js";
import { CounterfoilError } from "./errors.js";
import type { Origins } from "./origins.js";

/** The cookie that the rule `cookie` reads. */
export const accessTokenCookie = "__Host-counterfoil-at";

/**
 * What is read of a request; an http.IncomingMessage is one. rawHeaders is name, value, name, value: the only place
 * where Node shows a header that came twice.
 */
export interface IncomingRequest {
  readonly method?: string | undefined;
  readonly rawHeaders: readonly string[];
}

/** Finds the token of a request. Two are never guessed between. */
export function credential(request: IncomingRequest, cookies: boolean, origins: Origins): string {
  const authorization = values(request, "authorization");
  if (authorization.length > 1) throw new CounterfoilError("credential_ambiguous");
  // Another scheme is somebody else's credential, not a token.
  const token = authorization[0] === undefined ? undefined : bearer(authorization[0]);
  if (token !== undefined) return token;
  if (!cookies) throw new CounterfoilError("credential_missing");
  const found = values(request, "cookie").flatMap(accessTokens);
  if (found.length > 1) throw new CounterfoilError("credential_ambiguous");
  if (found[0] === undefined) throw new CounterfoilError("credential_missing");
  if (!origins.allows(request.method ?? "GET", (name) => values(request, name)[0] ?? "")) {
    throw new CounterfoilError("invalid_request", "a cookie came from another origin", { field: "Origin" });
  }
  return found[0];
}

function values(request: IncomingRequest, name: string): string[] {
  const found: string[] = [];
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    if (request.rawHeaders[i]!.toLowerCase() === name) found.push(request.rawHeaders[i + 1]!);
  }
  return found;
}

/**
 * Reads "Bearer <token>" (RFC 6750 section 2.1, RFC 9110 section 11.4): the scheme in any case, one space or more. A
 * scheme without a token is an empty token, which no check takes.
 */
function bearer(value: string): string | undefined {
  return /^bearer(?: +(.*))?$/is.exec(value) === null ? undefined : value.slice("bearer".length).replace(/^ +/, "");
}

/** The values of the cookies of our name (RFC 6265 section 4.2.1). */
function accessTokens(header: string): string[] {
  const start = `${accessTokenCookie}=`;
  return header
    .split(";")
    .map((pair) => pair.replace(/^[ \t]+|[ \t]+$/g, ""))
    .filter((pair) => pair.startsWith(start))
    .map((pair) => pair.slice(start.length));
}

const verified = new WeakMap<object, Claims>();

/**
 * Returns the claims of a request that `requireToken` has let through. Elsewhere it throws: a route that was forgotten
 * shows when it is tried, not when it is abused.
 */
export function claimsOf(request: object): Claims {
  const claims = verified.get(request);
  if (claims === undefined) throw new Error("counterfoil: claimsOf: the request carries no verified token; is requireToken before this handler?");
  return claims;
}

/** Is `claimsOf` for routes behind `optionalToken`: undefined for a request without a token. */
export function optionalClaimsOf(request: object): Claims | undefined {
  return verified.get(request);
}

/** Gives a request its claims, as the middleware does. Tests of handlers call it with claims of their own. */
export function setClaims(request: object, claims: Claims): void {
  verified.set(request, claims);
}
