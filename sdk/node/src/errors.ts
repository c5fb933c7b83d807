/** The codes of refusals. They are stable and are what clients act on. */
export type Code =
  | "token_invalid" // 401: malformed, signature, unknown or revoked key; refresh once, then report
  | "token_expired" // 401: refresh once and repeat
  | "token_stale" // 401: rights changed; refresh once and repeat
  | "token_revoked" // 401: refresh once and repeat
  | "token_too_old" // 401: older than the route takes; refresh once and repeat
  | "audience_mismatch" // 403: made for another service
  | "insufficient_scope" // 403: a scope or role is missing
  | "insufficient_user_authentication" // 401: step up and repeat (RFC 9470)
  | "session_revoked" // 401: ended; sign in
  | "session_expired" // 401: ended; sign in
  | "session_unknown" // 401: ended; sign in
  | "credential_missing" // 401: the session has not ended
  | "credential_ambiguous" // 401: more than one credential; the session has not ended
  | "invalid_request" // 403: a cookie came from another origin
  | "unavailable"; // 503: it could not be found out; wait

const statuses: Record<Code, number> = {
  token_invalid: 401,
  token_expired: 401,
  token_stale: 401,
  token_revoked: 401,
  token_too_old: 401,
  audience_mismatch: 403,
  insufficient_scope: 403,
  insufficient_user_authentication: 401,
  session_revoked: 401,
  session_expired: 401,
  session_unknown: 401,
  credential_missing: 401,
  credential_ambiguous: 401,
  invalid_request: 403,
  unavailable: 503,
};

/** What a refusal carries beside its code. */
export interface RefusalDetails {
  /** The header that is at fault, where one is. */
  field?: string;
  /** insufficient_scope: the scope the route asks for. */
  scope?: readonly string[];
  /** insufficient_user_authentication: the age the route takes, in seconds. */
  maxAge?: number;
  /** unavailable: when to try again, in seconds. */
  retryAfter?: number;
}

/** A request was refused. Act on `code`. */
export class CounterfoilError extends Error {
  override readonly name = "CounterfoilError";
  readonly code: Code;
  /** The HTTP status that goes with the code. */
  readonly status: number;
  readonly field?: string;
  readonly scope?: readonly string[];
  readonly maxAge?: number;
  readonly retryAfter?: number;

  /**
   * @param reason says in detail what is wrong. It becomes part of `message`, which is for logs: clients learn only
   * the code, since what a forger gets wrong is no business of the forger. It never holds a token.
   */
  constructor(code: Code, reason?: string, details: RefusalDetails = {}, cause?: unknown) {
    super(reason === undefined ? code : `${code}: ${reason}`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.status = statuses[code];
    if (details.field !== undefined) this.field = details.field;
    if (details.scope !== undefined) this.scope = details.scope;
    if (details.maxAge !== undefined) this.maxAge = details.maxAge;
    if (details.retryAfter !== undefined) this.retryAfter = details.retryAfter;
  }
}

/** An option or a rule cannot be used. It is thrown when the program starts, not for requests. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** The option or rule. */
  readonly field: string;

  constructor(field: string, problem: string) {
    super(`${field} ${problem}`);
    this.field = field;
  }
}

/** Returns the text of whatever was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Makes an unavailable of whatever went wrong, and leaves refusals as they are. */
export function refusal(doing: string, error: unknown): CounterfoilError {
  return error instanceof CounterfoilError ? error : new CounterfoilError("unavailable", `${doing}: ${textOf(error)}`, {}, error);
}
