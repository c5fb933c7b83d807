import { CounterfoilError, type Code } from "./errors.js";

// One text a code: what exactly is wrong with a token is not said to whoever sent it.
const details: Record<Code, string> = {
  token_invalid: "The access token is not valid here. Refresh it once.",
  token_expired: "The access token has expired. Refresh it.",
  token_stale: "The rights of this user have changed since the access token was issued. Refresh it.",
  token_revoked: "The access token has been revoked. Refresh it.",
  token_too_old: "The access token is older than this resource accepts. Refresh it.",
  audience_mismatch: "The access token was issued for another service.",
  insufficient_scope: "The access token does not grant what this resource asks for.",
  insufficient_user_authentication: "This resource asks for a more recent or stronger authentication.",
  session_revoked: "The session has been ended. Sign in again.",
  session_expired: "The session has expired. Sign in again.",
  session_unknown: "There is no such session. Sign in again.",
  credential_missing: "The request carries no access token.",
  credential_ambiguous: "The request carries more than one credential.",
  invalid_request: "The request came from an origin that may not send it.",
  unavailable: "This cannot be verified at the moment. Try again.",
};

const titles: Record<number, string> = { 401: "Unauthorized", 403: "Forbidden", 503: "Service Unavailable" };

/** An answer, ready to be sent. */
export interface Problem {
  status: number;
  headers: Record<string, string>;
  /** JSON text. */
  body: string;
}

/**
 * Makes the answer to a request that was refused: RFC 9457 problem+json with a code, and for refusals of access tokens
 * the challenge of RFC 6750 section 3 and RFC 9470. Whatever is no {@link CounterfoilError} is answered as unavailable:
 * what is not understood is refused, and its text stays here.
 */
export function problem(error: unknown): Problem {
  const e = error instanceof CounterfoilError ? error : new CounterfoilError("unavailable");
  const body: Record<string, unknown> = { code: e.code, detail: details[e.code], status: e.status, title: titles[e.status] };
  if (e.field !== undefined) body["field"] = e.field;
  if (e.code === "insufficient_user_authentication" && e.maxAge !== undefined) body["max_age"] = Math.ceil(e.maxAge);
  if (e.code === "insufficient_scope" && e.scope?.length) body["scope"] = e.scope.join(" ");
  const text = JSON.stringify(body) + "\n";
  const headers: Record<string, string> = {
    "Content-Type": "application/problem+json",
    "Content-Length": String(Buffer.byteLength(text)),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  };
  if (e.status === 503) headers["Retry-After"] = String(Math.max(1, Math.ceil(e.retryAfter ?? 0)));
  const wanted = challenge(e);
  if (wanted !== undefined) headers["WWW-Authenticate"] = wanted;
  return { status: e.status, headers, body: text };
}

/** The WWW-Authenticate value of a refusal. A request without a credential gets no error code (RFC 6750 section 3.1). */
function challenge(e: CounterfoilError): string | undefined {
  let code = "";
  switch (e.code) {
    case "credential_missing":
      break;
    case "credential_ambiguous":
      code = "invalid_request";
      break;
    case "insufficient_scope":
    case "insufficient_user_authentication":
      code = e.code;
      break;
    case "invalid_request":
    case "unavailable":
      return undefined;
    default:
      code = e.code === "audience_mismatch" || e.status === 401 ? "invalid_token" : e.code;
  }
  const params = ['Bearer realm="counterfoil"'];
  const add = (name: string, value: string) => params.push(`${name}=${quote(value)}`);
  if (code !== "") {
    add("error", code);
    add("error_description", details[e.code]);
  }
  if (e.scope?.length) add("scope", e.scope.join(" "));
  if (e.maxAge !== undefined) add("max_age", String(Math.ceil(e.maxAge)));
  return params.join(", ");
}

/** Makes a quoted-string (RFC 9110 section 5.6.4) that cannot end early. */
function quote(s: string): string {
  return `"${s.replace(/[^ -~]/g, "?").replace(/["\\]/g, "\\$&")}"`;
}
