/** What an authority or a verifier may answer, beside codes of later versions. */
export type Code =
  | "token_invalid"
  | "token_expired"
  | "token_stale"
  | "token_revoked"
  | "token_too_old"
  | "audience_mismatch"
  | "insufficient_scope"
  | "insufficient_user_authentication"
  | "session_revoked"
  | "session_expired"
  | "session_unknown"
  | "credential_missing"
  | "credential_ambiguous"
  | "proof_required"
  | "invalid_credentials"
  | "invalid_request"
  | "conflict"
  | "not_found"
  | "rate_limited"
  | "unavailable"
  | "internal";

/** The three codes that end a session; nothing else does. */
export type EndCode = "session_revoked" | "session_expired" | "session_unknown";

/** What an answer said beside its code. Durations in seconds, times in Unix seconds. */
export interface Details {
  /** HTTP status; 0 where there was no answer. */
  status?: number;
  /** How long to wait before trying again. */
  retryAfter?: number;
  /** The part of the request that is wrong. */
  field?: string;
  /** The session that has ended, why and when. */
  sid?: string;
  reason?: string;
  endedAt?: number;
}

/** Why a call did not succeed. Act on `code`, never on the text. */
export class CounterfoilError extends Error {
  readonly code: Code;
  readonly status: number = 0;
  declare readonly retryAfter?: number;
  declare readonly field?: string;
  declare readonly sid?: string;
  declare readonly reason?: string;
  declare readonly endedAt?: number;

  constructor(code: Code, message?: string, details?: Details, cause?: unknown) {
    super(message || code, { cause });
    this.name = "CounterfoilError";
    this.code = code;
    Object.assign(this, details);
  }

  /** Whether the authority said that the session has ended. */
  get ended(): boolean {
    return this.status === 401 && /^session_(revoked|expired|unknown)$/.test(this.code);
  }
}

/** For what is no answer of the authority, or none in time: the session stands, and it is tried again. */
export function unavailable(details?: Details, cause?: unknown): CounterfoilError {
  return new CounterfoilError("unavailable", "no answer of the authority", details, cause);
}
