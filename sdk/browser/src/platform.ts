/** What wakes a page: `back` for a page out of the back/forward cache, which may show what has ended. */
export type Wake = "online" | "visible" | "focus" | "back" | "resume";

/**
 * All that the session takes from its surroundings, so that tests can bring their own: no other module knows a global of
 * the browser.
 */
export interface Platform {
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** The page's own address, which the authority's and the default of `origins` belong to. */
  readonly base: string;
  /** What fetch takes relative addresses for, as it is now: pages change their address, and may have a base element. */
  baseURI(): string;
  /** Milliseconds that only grow; may stand still while the machine sleeps. */
  mono(): number;
  /** Milliseconds since 1970; may jump. */
  wall(): number;
  /** From 0 to less than 1, for spreading load. */
  random(): number;
  /** Calls once after ms; what it returns cancels. */
  timer(ms: number, call: () => void): () => void;
  visible(): boolean;
  /** Tells other tabs. Signals travel, tokens never. */
  post(signal: Signal): void;
  /** Holds a lock that other tabs share while `held` runs; false at once where another tab has it. */
  lock?(name: string, held: () => Promise<void>): Promise<boolean>;
  /** Begins to listen. Returns what stops it. */
  listen(to: { wake(wake: Wake): void; hidden(): void; touch(): void; signal(signal: unknown): void }): () => void;
}

/**
 * What tabs tell each other:
 * - `begin`, `end`: a call that may replace the cookie has been sent, and was answered without replacing it.
 * - `changed`: the cookie names another session, or the same with another secret.
 * - `left`: the user signed out of session `sid`, or of all.
 * - `check`: something may have happened to the session; ask.
 * - `wait`: the authority wants no refresh for so many milliseconds.
 */
export type Signal =
  | { type: "begin" | "end" | "changed" | "check" }
  | { type: "left"; sid: string | undefined }
  | { type: "wait"; ms: number };
