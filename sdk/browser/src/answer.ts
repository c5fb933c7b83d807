import { CounterfoilError, unavailable, type Code } from "./errors.js";
import type { Session } from "./types.js";

/** What a sign-in or a refresh answers. */
export interface Grant {
  token: string;
  /** Milliseconds from when the request was sent. */
  life: number;
  refreshAfter: number;
  /** The authority's clock, in milliseconds since 1970. */
  serverTime: number;
  session: Session;
}

/** Members of the wire (expires_at) by the names of TypeScript (expiresAt); of the outermost, only those asked for. */
export function named(value: unknown, only = /./): any {
  if (Array.isArray(value)) return value.map((v) => named(v));
  if (!isObject(value)) return value;
  const entries = Object.entries(value).filter(([name]) => only.test(name));
  return Object.fromEntries(entries.map(([name, v]) => [name.replace(/_./g, (c) => c[1]!.toUpperCase()), named(v)]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Reads a grant; undefined for whatever is none, such as what a portal between us and the authority made up. */
export function grantOf(answer: unknown): Grant | undefined {
  if (!isObject(answer)) return;
  const { access_token: token, expires_in: life, refresh_after: after, server_time: now, session } = answer;
  if (typeof token !== "string" || !/^[\w.~+/=-]+$/.test(token) || !positive(life) || !isObject(session) || typeof session["sid"] !== "string") return;
  return {
    token,
    life: life * 1000,
    refreshAfter: (positive(after) && after < life ? after : life * 0.7) * 1000,
    serverTime: positive(now) ? now * 1000 : NaN,
    session: named(session),
  };
}

function positive(value: unknown): value is number {
  return typeof value === "number" && value > 0 && value < Infinity;
}

/** The problem of an answer (RFC 9457); an empty one where there is none. The body can still be read. */
export async function problemOf(response: Response): Promise<Record<string, unknown>> {
  try {
    const problem: unknown = await response.clone().json();
    if (isObject(problem) && typeof problem["code"] === "string") return problem;
  } catch {
    // No JSON, or cut: somebody else's answer.
  }
  return {};
}

/** Reads an answer of the authority. Throws a CounterfoilError for whatever is no success. */
export async function read(sent: Promise<Response>): Promise<unknown> {
  let status = 0;
  try {
    const response = await sent;
    status = response.status;
    if (status === 204) return;
    if (response.ok) return await response.json();
    const problem = await problemOf(response);
    const wait = response.headers.get("Retry-After");
    throw new CounterfoilError((problem["code"] as Code | undefined) ?? "unavailable", problem["detail"] as string | undefined, {
      status,
      ...(named(problem, /^(field|sid|reason|ended_at)$/) as object),
      // A date is left out: the clocks may differ by more than the wait.
      ...(wait && +wait >= 0 && { retryAfter: +wait }),
    });
  } catch (error) {
    throw error instanceof CounterfoilError ? error : unavailable({ status }, error);
  }
}
