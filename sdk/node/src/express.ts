import type { IncomingMessage, ServerResponse } from "node:http";
import { CounterfoilError } from "./errors.js";
import { problem } from "./problem.js";
import { setClaims } from "./request.js";
import type { Rules } from "./rules.js";
import type { Verifier } from "./verifier.js";

export { claimsOf, optionalClaimsOf } from "./request.js";
export { watch } from "./watch.js";

/** Middleware for Express, and for whatever else takes connect's. */
export type Middleware = (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => void;

/**
 * Lets requests through that carry a valid access token and keep the rules; the handler finds the claims with
 * `claimsOf(req)`. All others are answered with problem+json and a code. It throws a ConfigError for a rule that the
 * verifier cannot keep.
 *
 * It treats all methods alike: a CORS preflight carries no token, so whatever answers OPTIONS stands before it.
 */
export function requireToken(verifier: Verifier, rules: Rules = {}): Middleware {
  return middleware(verifier, rules, false);
}

/**
 * Is requireToken for routes that serve strangers too: a request without a credential passes, and
 * `optionalClaimsOf(req)` finds nothing. A bad credential is refused all the same.
 */
export function optionalToken(verifier: Verifier, rules: Rules = {}): Middleware {
  return middleware(verifier, rules, true);
}

function middleware(verifier: Verifier, rules: Rules, optional: boolean): Middleware {
  const check = verifier.requestChecker(rules);
  return (req, res, next) => {
    check(req)
      .then(
        (claims) => {
          setClaims(req, claims);
          return true;
        },
        (error: unknown) => {
          if (optional && error instanceof CounterfoilError && error.code === "credential_missing") return true;
          const answer = problem(error);
          res.statusCode = answer.status;
          for (const [name, value] of Object.entries(answer.headers)) res.setHeader(name, value);
          res.end(answer.body);
          return false;
        },
      )
      .then((goOn) => {
        if (goOn) next();
      })
      .catch(next);
  };
}
