import type { onRequestAsyncHookHandler } from "fastify";
import { CounterfoilError } from "./errors.js";
import { problem } from "./problem.js";
import { setClaims } from "./request.js";
import type { Rules } from "./rules.js";
import type { Verifier } from "./verifier.js";

export { claimsOf, optionalClaimsOf } from "./request.js";
export { watch } from "./watch.js";

/**
 * An onRequest hook that lets requests through that carry a valid access token and keep the rules; the handler finds the
 * claims with `claimsOf(request)`. All others are answered with problem+json and a code. It throws a ConfigError for a
 * rule that the verifier cannot keep.
 */
export function requireToken(verifier: Verifier, rules: Rules = {}): onRequestAsyncHookHandler {
  return hook(verifier, rules, false);
}

/**
 * Is requireToken for routes that serve strangers too: a request without a credential passes, and
 * `optionalClaimsOf(request)` finds nothing. A bad credential is refused all the same.
 */
export function optionalToken(verifier: Verifier, rules: Rules = {}): onRequestAsyncHookHandler {
  return hook(verifier, rules, true);
}

function hook(verifier: Verifier, rules: Rules, optional: boolean): onRequestAsyncHookHandler {
  const check = verifier.requestChecker(rules);
  return async (request, reply) => {
    try {
      setClaims(request, await check(request.raw));
      return undefined;
    } catch (error) {
      if (optional && error instanceof CounterfoilError && error.code === "credential_missing") return undefined;
      const { status, headers, body } = problem(error);
      return reply.code(status).headers(headers).send(Buffer.from(body));
    }
  };
}
