// Access tokens are plain JWTs (RFC 9068), so any good library verifies them.
// Here are two. Whichever you take: fix the algorithm, and check typ, iss and
// aud, so that no other token of the issuer is taken for an access token.
import { createPublicKey } from "node:crypto";
import * as jose from "jose";
import jsonwebtoken from "jsonwebtoken";
import { issuer, jwksURL } from "./counterfoil.js";
import { problem } from "./problem.js";

const audience = process.env.AUDIENCE ?? "app"; // this service, as the authority's --audience names it
const algorithms = ["ES256"]; // jsonwebtoken knows no EdDSA
const typ = "at+jwt";
const clockTolerance = 5; // seconds, as Counterfoil's own verifiers

// jose brings key sets along: fetched once, again for an unknown kid, never
// more often than every 30 seconds.
const remoteKeys = jose.createRemoteJWKSet(jwksURL);

export const withJose = protect(async (token) => {
  const { payload } = await jose.jwtVerify(token, remoteKeys, {
    issuer, audience, algorithms, typ, clockTolerance, requiredClaims: ["sub", "sid", "exp", "iat", "jti"],
  });
  return payload;
});

// jsonwebtoken is given one key. Which one, the header's kid says.
export const withJsonwebtoken = protect(async (token) => {
  const header = jsonwebtoken.decode(token, { complete: true })?.header;
  if (header?.typ !== typ) throw new jsonwebtoken.JsonWebTokenError("another typ"); // it does not look by itself
  const key = await keyOf(header.kid);
  if (!key) throw new jsonwebtoken.JsonWebTokenError("unknown kid");
  const payload = jsonwebtoken.verify(token, key, { issuer, audience, algorithms, clockTolerance });
  if (!payload.sub || !payload.sid || !payload.exp) throw new jsonwebtoken.JsonWebTokenError("a claim is missing");
  return payload;
});

let keys = new Map();
let fetching; // all who wait share one fetch
let fetched = 0;

async function keyOf(kid) {
  if (!keys.has(kid) && Date.now() - fetched > 30_000) {
    fetching ??= fetchKeys().finally(() => { fetching = undefined; });
    await fetching;
  }
  return keys.get(kid);
}

async function fetchKeys() {
  const res = await fetch(jwksURL, { redirect: "error", signal: AbortSignal.timeout(5000) });
  if (!res.ok) throw new Error(`keys: ${res.status}`);
  const set = await res.json();
  const usable = set.keys.filter((jwk) => algorithms.includes(jwk.alg));
  keys = new Map(usable.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]));
  fetched = Date.now();
}

// refused tells a bad token from keys that could not be fetched.
function refused(error) {
  if (error instanceof jsonwebtoken.JsonWebTokenError) return true;
  const outage = ["ERR_JOSE_GENERIC", "ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID"];
  return error instanceof jose.errors.JOSEError && !outage.includes(error.code);
}

// protect makes a middleware of a function that verifies. The page asks for a
// fresh token after each 401 once, so what exactly was wrong is not told.
function protect(verify) {
  return async (req, res, next) => {
    const [scheme, token] = (req.get("Authorization") ?? "").split(" ");
    if (scheme.toLowerCase() !== "bearer" || !token) {
      res.set("WWW-Authenticate", "Bearer");
      return problem(res, 401, "credential_missing", "Send Authorization: Bearer and an access token.");
    }
    try {
      req.user = await verify(token);
    } catch (error) {
      if (!refused(error)) return next(error); // 503
      res.set("WWW-Authenticate", 'Bearer error="invalid_token"');
      return problem(res, 401, "token_invalid", "The access token is not good here, or no longer. Refresh it once.");
    }
    next();
  };
}
