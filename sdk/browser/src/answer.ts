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

/** Members of the wire (expires_at) by the names of TypeScript (expiresAt). */
export function named(value: unknown): any {
  if (Array.isArray(value)) return value.map(named);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, v]) => [name.replace(/_([a-z])/g, (_, c: string) => c.toUpperCase()), named(v)]));
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

/** The code of a refusal, by RFC 9457 or by the challenge of RFC 6750; undefined where there is none. Leaves the body. */
export async function problemOf(response: Response): Promise<Record<string, unknown>> {
  if (/json/.test(response.headers.get("Content-Type") ?? "")) {
    try {
      const problem: unknown = await response.clone().json();
      if (isObject(problem) && typeof problem["code"] === "string") return problem;
    } catch {
      // A body that is no JSON, or cut: the header may still tell.
    }
  }
  const challenge = response.headers.get("WWW-Authenticate") ?? "";
  const member = (name: string) => new RegExp(`\\b${name}="?([^",]+)`).exec(challenge)?.[1];
  return {
    code: member("error")?.replace("invalid_token", "token_invalid"),
    max_age: Number(member("max_age") ?? NaN),
    acr_values: member("acr_values"),
  };
}

/** Reads an answer of the authority. Throws a CounterfoilError for whatever is no success. */
export async function read(sent: Promise<Response>): Promise<unknown> {
  let response: Response;
  let text = "";
  try {
    response = await sent;
    if (response.ok) text = await response.text();
  } catch (error) {
    throw unavailable("the authority could not be reached", {}, error);
  }
  const status = response.status;
  if (response.ok) {
    if (status === 204) return;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw unavailable("the answer is not the authority's", { status }, error);
    }
  }
  const problem = await problemOf(response);
  const details: Record<string, unknown> = { ...named(problem), status };
  delete details["code"];
  delete details["detail"];
  const wait = response.headers.get("Retry-After");
  if (wait) {
    // A date is compared with the sender's clock, never with ours.
    const seconds = /^\d+$/.test(wait) ? +wait : (Date.parse(wait) - Date.parse(response.headers.get("Date") ?? "")) / 1000;
    if (seconds >= 0) details["retryAfter"] = seconds;
  }
  // A challenge without a problem is no answer of the authority: a proxy made it.
  const code = "detail" in problem || "title" in problem || "status" in problem ? problem["code"] : undefined;
  throw new CounterfoilError((code as Code | undefined) ?? "unavailable", String(problem["detail"] ?? `the answer was ${status}`), details);
}
