import { grantOf, read, type Grant } from "./answer.js";
import { CounterfoilError, unavailable, type EndCode } from "./errors.js";
import type { Session, State } from "./types.js";

/** Options of `createServerSessions`. */
export interface ServerOptions {
  /** Where the server reaches the authority's device calls, such as `http://127.0.0.1:8700/v1/auth`. */
  authority: string;
  /** The service that access tokens are for; default the authority's first. */
  audience?: string;
  /** Origins whose requests `fetch` gives the access token; none by default. */
  origins?: readonly string[];
  /** Seconds a refresh may take; default 5. */
  timeout?: number;
  /** For tests and instrumentation; default the global one. */
  fetch?: typeof fetch;
}

/** A request as Node, Fetch or a framework has it. */
export type IncomingRequest = { headers: Headers | Record<string, string | readonly string[] | undefined> };

/** The session of one incoming request. */
export interface ServerSession {
  /** What the authority says; asked once for the request, and never thrown. */
  state(): Promise<State>;
  /** Throws a CounterfoilError as in the browser. */
  getToken(): Promise<string>;
  /** As the global `fetch`, with the access token for the configured origins while somebody is signed in. */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** Set-Cookie lines of the authority's answer. Passing them on is good, and not needed for the next request to work. */
  setCookies(): Promise<readonly string[]>;
}

type Answer = { grant: Grant; cookies: readonly string[] };

const kept = 1_000; // milliseconds, so that requests of one page share a refresh
const most = 10_000; // sessions at a time

/**
 * Sessions of the requests that come to a server which renders pages. Each incoming request costs at most one refresh,
 * however many parts of the page ask, and so do requests with the same cookie that come together. Nothing is written, and
 * no token belongs into the page: the browser fetches its own.
 */
export function createServerSessions(options: ServerOptions): (request: IncomingRequest) => ServerSession {
  const url = options.authority.replace(/\/$/, "") + "/refresh";
  const origins = (options.origins ?? []).map((origin) => new URL(origin).origin);
  const ask: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init));
  const requests = new WeakMap<object, ServerSession>();
  const answers = new Map<string, Promise<Answer>>();

  async function refresh(cookie: string, active: boolean): Promise<Answer> {
    if (!cookie) throw new CounterfoilError("credential_missing", "the request carries no session", { status: 401 });
    let cookies: readonly string[] = [];
    const sent = ask(url, {
      method: "POST",
      headers: { Cookie: cookie, "Content-Type": "application/json" },
      body: JSON.stringify({ ...(options.audience && { audience: options.audience }), ...(!active && { active }) }),
      redirect: "error",
      signal: AbortSignal.timeout((options.timeout ?? 5) * 1000),
    }).then((response) => {
      cookies = response.headers.getSetCookie?.() ?? [];
      return response;
    });
    const grant = grantOf(await read(sent));
    if (!grant) throw unavailable();
    return { grant, cookies };
  }

  /** One refresh for all that ask with this cookie now. */
  function shared(cookie: string, active: boolean): Promise<Answer> {
    const known = answers.get(cookie);
    if (known) return known;
    const answer = refresh(cookie, active);
    if (!cookie || answers.size >= most) return answer;
    answers.set(cookie, answer);
    const forget = () => answers.delete(cookie);
    answer.then(() => unref(setTimeout(forget, kept)), forget);
    return answer;
  }

  return (request) => {
    const known = requests.get(request);
    if (known) return known;
    const get = (name: string) => header(request.headers, name);
    const cookie = sessionCookies(get("cookie") ?? "");
    // The user did something if a page was gone to; what scripts ask for tells nothing.
    const mode = get("sec-fetch-mode");
    let answer: Promise<Answer> | undefined;
    const asked = () => (answer ??= shared(cookie, mode === undefined || mode === "navigate"));
    const session: ServerSession = {
      async state() {
        try {
          return { status: "signed-in", session: (await asked()).grant.session as Session };
        } catch (error) {
          const e = error as CounterfoilError;
          if (e.ended) return { status: "ended", code: e.code as EndCode, reason: e.reason, endedAt: e.endedAt, sid: e.sid };
          if (e.code === "credential_missing") return { status: "signed-out" };
          return { status: "refreshing-later", code: e.code, session: undefined };
        }
      },
      getToken: async () => (await asked()).grant.token,
      async fetch(input, init) {
        const request = input instanceof Request ? input : undefined;
        const headers = new Headers(init?.headers ?? request?.headers);
        const target = new URL(request ? request.url : String(input));
        if (!origins.includes(target.origin) || headers.has("Authorization")) return ask(input, init);
        try {
          headers.set("Authorization", `Bearer ${(await asked()).grant.token}`);
        } catch (error) {
          const e = error as CounterfoilError;
          if (!e.ended && e.code !== "credential_missing") throw error;
        }
        return ask(input, { ...init, headers });
      },
      setCookies: async () => (await asked().catch(() => undefined))?.cookies ?? [],
    };
    requests.set(request, session);
    return session;
  };
}

function header(headers: IncomingRequest["headers"], name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined;
  const value = headers[name];
  return typeof value === "object" ? value.join("; ") : value;
}

/** What the authority is to see of the Cookie header: its own, and of these not the access token. */
function sessionCookies(header: string): string {
  return header
    .split(";")
    .map((cookie) => cookie.trim())
    .filter((cookie) => /^__Host-counterfoil(?!-at[=-])[\w.-]*=/.test(cookie))
    .join("; ");
}

/** Keeps no process alive for it. */
function unref(timer: unknown): void {
  (timer as { unref?(): void }).unref?.();
}
