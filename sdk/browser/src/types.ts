import type { Code, EndCode } from "./errors.js";

/** A session as the authority shows it. Times in Unix seconds. */
export interface Session {
  /** Its public id: names it, grants nothing. */
  readonly sid: string;
  readonly subject: string;
  readonly clientId: string;
  readonly status: "active" | "revoked" | "expired";
  readonly createdAt: number;
  readonly lastActiveAt: number;
  readonly idleExpiresAt: number;
  readonly expiresAt: number;
  /** When and how the user last proved who they are (RFC 8176). */
  readonly authTime: number;
  readonly amr: readonly string[];
  readonly device: { readonly userAgent: string; readonly ip: string };
  /** Marks this session in a list. */
  readonly current?: boolean;
}

/**
 * - `starting`: the authority has not been heard yet.
 * - `signed-in`: there is a session.
 * - `refreshing-later`: there may be one, but no valid access token; `code` says why. It is tried again by itself, and no
 *   reason to send the user away, but for `credential_missing` (the browser holds no session cookie any more) and
 *   `proof_required` (this device cannot show its key) the user may be asked to sign in.
 * - `ended`: the authority said that the session has ended, twice.
 * - `signed-out`: nobody is signed in here: never was, or the user has signed out in this browser.
 */
export type State =
  | { readonly status: "starting" }
  | { readonly status: "signed-in"; readonly session: Session }
  | { readonly status: "refreshing-later"; readonly code: Code; readonly session: Session | undefined }
  | { readonly status: "ended"; readonly code: EndCode; readonly reason: string | undefined; readonly endedAt: number | undefined; readonly sid: string | undefined }
  | { readonly status: "signed-out" };

/** What a route asks for beyond the access token (RFC 9470 section 3). */
export interface Challenge {
  /** How long ago the user may have proved who they are, in seconds; NaN where the route does not say. */
  readonly maxAge: number;
  readonly acrValues: readonly string[];
}

/** How a user signs in. */
export interface Credentials {
  email: string;
  password: string;
}

/** Which sessions a sign-out ends. */
export type Which = "this" | "others" | "all";

/** Options of `createSession`. */
export interface Options {
  /** Where the authority's device calls are; default `/auth`. */
  authority?: string;
  /** The service that access tokens are for; default the authority's first. */
  audience?: string;
  /** The application, where the authority serves several. */
  clientId?: string;
  /** Origins whose requests `fetch` gives the access token; default the page's own. */
  origins?: readonly string[];
  /** Hears of the session's end at once, over a stream that one visible tab holds; default false. */
  watch?: boolean;
  /**
   * Called when a request of `fetch` needs a fresh proof of who the user is: once for all that wait. Ask the user, call
   * `stepUp`, and return; the requests are then repeated once. Return false, or throw, to give up.
   */
  onStepUp?: (challenge: Challenge) => unknown;
  /** Seconds one request to the authority may take; default 10. */
  timeout?: number;
  /** Seconds `getToken` may take at most while the page runs; default 15. */
  wait?: number;
}

/** What `createSession` makes: one for a page, shared by all of its code. */
export interface BrowserSession {
  /** What is known now. */
  readonly state: State;
  /** How far this device's clock is ahead of the authority's, in seconds; 0 until the first answer. */
  readonly clockSkew: number;
  /** Settles with the first state that is not `starting`, offline too. */
  readonly ready: Promise<State>;
  /** Calls with each new state; also when another session took the place of this one. Returns what stops it. */
  onChange(listener: (state: State) => void): () => void;
  /**
   * An access token, at once if a valid one is at hand, else within `wait` seconds. Throws a `CounterfoilError`:
   * `credential_missing` while signed out, `session_…` after the end, `conflict` if another user has signed in while it
   * waited, `unavailable` and others to be tried again.
   */
  getToken(): Promise<string>;
  /**
   * As the global `fetch`, with the access token for the configured origins. Nothing that was asked for while one user was
   * signed in is sent as another.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  signIn(credentials: Credentials): Promise<Session>;
  signUp(credentials: Credentials): Promise<Session>;
  /** Ends this session, the user's others, or all. Where it throws, nothing has ended; `credential_missing`: there was no cookie. */
  signOut(which?: Which): Promise<void>;
  /** Proves again who the user is. */
  stepUp(proof: { password: string } | { credential: unknown }): Promise<Session>;
  /** The user's sessions on all devices. */
  readonly devices: {
    list(): Promise<Session[]>;
    /** Ends one session, by its sid. */
    end(sid: string): Promise<void>;
    endOthers(): Promise<void>;
  };
  /**
   * A call to the authority, below its prefix. An answer that carries an access token makes this page's session of it.
   * Names of members are as on the wire.
   */
  call(method: string, path: string, body?: object): Promise<unknown>;
  /** Stops everything: timers, listeners, the stream. The session itself goes on. */
  close(): void;
}
