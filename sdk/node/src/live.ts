import { later, type Clock, type Logger } from "./clock.js";
import type { Claims } from "./claims.js";
import { CounterfoilError, refusal, textOf, type Code } from "./errors.js";
import { StatusError, type Client } from "./http.js";
import { asBoolean, asString, parseObject } from "./json.js";

/** Asks the authority whether a token still holds. Throws a CounterfoilError if not. */
export type Ask = (token: string, claims: Claims) => Promise<void>;

/** Asks by RFC 7662. The API key is held where no printing finds it. */
export function introspection(client: Client, apiKey: string, timeout: number, log: Logger): Ask {
  let lastWord = -Infinity;
  // At most one complaint in ten seconds: a route under load would fill the log of an outage.
  const complain = (message: string) => {
    const now = performance.now();
    if (now - lastWord < 10_000) return;
    lastWord = now;
    log.error(message);
  };
  return async (token, claims) => {
    let text: string;
    try {
      ({ text } = await client.json("/oauth2/introspect", [], {
        method: "POST",
        headers: { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/x-www-form-urlencoded" },
        body: new URLSearchParams({ token }).toString(),
        timeout,
      }));
    } catch (error) {
      const status = error instanceof StatusError ? error.status : 0;
      complain(
        status === 401 || status === 403
          ? `the authority refuses the API key: apiKey needs the scope verify (${textOf(error)})`
          : `a live check failed: ${textOf(error)}`,
      );
      const after = error instanceof StatusError ? error.retryAfter : undefined;
      throw new CounterfoilError("unavailable", `live check: ${textOf(error)}`, after === undefined ? {} : { retryAfter: after }, error);
    }
    let refused: Code | undefined;
    try {
      refused = verdict(text, claims);
    } catch (error) {
      complain(`the answer to a live check is unclear: ${textOf(error)}`);
      throw new CounterfoilError("unavailable", `introspection answer: ${textOf(error)}`);
    }
    if (refused !== undefined) throw new CounterfoilError(refused, "the authority says so");
  };
}

// The authority tells more than active: false to those it knows.
const told: readonly Code[] = ["token_stale", "token_expired", "session_revoked", "session_expired", "session_unknown"];

/** Reads the answer; undefined for a token that holds. One that says nothing clear throws. */
function verdict(text: string, claims: Claims): Code | undefined {
  const answer = parseObject(text);
  const sid = answer.has("sid") ? asString(answer.get("sid")) : "";
  const code = answer.has("cf_code") ? asString(answer.get("cf_code")) : "";
  if (asBoolean(answer.get("active"))) {
    if (sid !== "" && sid !== claims.sessionId) throw new Error("it speaks of another session");
    return undefined;
  }
  return told.find((known) => known === code) ?? "token_revoked";
}

/**
 * Makes live checks. For one token at most one question is on its way; whoever comes meanwhile waits for the next one,
 * which all of them share, so that each answer was asked for after its request had come. Many requests with one token
 * cost two questions, not many.
 */
export class Asker {
  readonly #queues = new Map<string, { next: Promise<void> | undefined; current: Promise<void> }>();

  constructor(
    private readonly timeout: number, // ms
    private readonly question: Ask,
  ) {}

  /** Never waits longer than the timeout. */
  async ask(token: string, claims: Claims): Promise<void> {
    let queue = this.#queues.get(token);
    let mine: Promise<void>;
    if (queue === undefined) {
      mine = this.#once(token, claims);
      queue = { current: mine, next: undefined };
      this.#queues.set(token, queue);
      this.#watch(token, queue);
    } else {
      const q = queue;
      mine = q.next ??= q.current.then(
        () => this.#once(token, claims),
        () => this.#once(token, claims),
      );
    }
    return inTime(mine, this.timeout, "live check: no answer in time");
  }

  #watch(token: string, queue: { next: Promise<void> | undefined; current: Promise<void> }): void {
    const over = () => {
      if (queue.next === undefined) {
        this.#queues.delete(token);
        return;
      }
      // Its question is being sent now: who comes from here on needs another.
      queue.current = queue.next;
      queue.next = undefined;
      this.#watch(token, queue);
    };
    queue.current.then(over, over);
  }

  async #once(token: string, claims: Claims): Promise<void> {
    try {
      await inTime(this.question(token, claims), this.timeout, "live check: no answer in time");
    } catch (error) {
      throw refusal("live check", error);
    }
  }
}

async function inTime<T>(promise: Promise<T>, ms: number, problem: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = later(ms, () => reject(new CounterfoilError("unavailable", problem)));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const mostAtOnce = 64;
const mostRemembered = 10_000;

/**
 * Live checks in place of a feed that is behind. An answer serves for as long as the route lets the feed be behind, so
 * that a cut feed does not send every request to the authority.
 */
export class FallbackAsker {
  readonly #answers = new Map<string, { sent: number; answer: Promise<void> }>();
  #under = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(
    private readonly timeout: number,
    private readonly clock: Clock,
    private readonly question: Ask,
  ) {}

  async ask(token: string, claims: Claims, maxAge: number): Promise<void> {
    // One session's tokens may be told apart by a revocation, so each is asked about by itself.
    const key = `${claims.sessionId} ${claims.tokenId}`;
    const known = this.#answers.get(key);
    if (known !== undefined && this.clock.monotonic() - known.sent <= maxAge) {
      await inTime(known.answer, this.timeout, tooSlow);
      // One that was under way when it was joined may have been sent too long ago.
      return this.clock.monotonic() - known.sent <= maxAge ? undefined : this.ask(token, claims, maxAge);
    }
    if (this.#under >= mostAtOnce) {
      await this.#turn();
      return this.ask(token, claims, maxAge);
    }
    const entry = { sent: this.clock.monotonic(), answer: this.#once(token, claims) };
    this.#answers.delete(key); // to the end of the order
    this.#answers.set(key, entry);
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= mostRemembered) break;
      this.#answers.delete(oldest);
    }
    entry.answer.catch((error: CounterfoilError) => {
      // No later answer takes a refusal back; that it could not be found out is no answer.
      if (error.code !== "unavailable") entry.sent = Infinity;
      else if (this.#answers.get(key) === entry) this.#answers.delete(key);
    });
    return inTime(entry.answer, this.timeout, tooSlow);
  }

  async #turn(): Promise<void> {
    let mine = () => {};
    const turn = new Promise<void>((go) => (mine = go));
    this.#waiting.push(mine);
    try {
      await inTime(turn, this.timeout, tooSlow);
    } catch (error) {
      this.#waiting.splice(this.#waiting.indexOf(mine), 1);
      throw error;
    }
  }

  async #once(token: string, claims: Claims): Promise<void> {
    this.#under++;
    try {
      await inTime(this.question(token, claims), this.timeout, tooSlow);
    } catch (error) {
      throw refusal("live check", error);
    } finally {
      this.#under--;
      this.#waiting.shift()?.();
    }
  }
}

const tooSlow = "the feed is behind, and the live check got no answer in time";
