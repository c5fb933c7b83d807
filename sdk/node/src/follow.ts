import type { IncomingMessage } from "node:http";
import { later, type Clock, type Logger } from "./clock.js";
import { textOf } from "./errors.js";
import { FrameReader, parseClock, type Beat, type Frame } from "./feed.js";
import { StatusError, retryAfter, type Client } from "./http.js";
import type { RemoteKeys } from "./keys.js";
import type { Entry, RevocationTable } from "./revocations.js";

const firstRetry = 100; // ms, after a connection has ended; doubles
const longestRetry = 10_000;
const refusedRetry = 2000; // ms, at least, where the authority does not want us: somebody has to mend something first
const firstSilence = 3000; // ms without a byte until a stream is given up; doubles where that was why it ended
const longestSilence = 24_000;
const headTimeout = 5000; // ms until the head of the answer
const behindFor = 30_000; // ms that nodes may say that they are behind us, before we ask for all that they have
const pinEvery = 30_000; // ms
const pinsUntil = 300_000; // ms that a stream goes on without: a new one tells the clock of its node
const drift = 0.0002; // that two monotonic clocks may part by
const suspended = 1000; // ms that wall and monotonic clock may part by
const longestToken = 24 * 3600; // seconds
const margin = 15; // seconds an entry lives beyond the longest token: leeway, error of the mint's clock, and once more

/** What a verifier knows of its feed. Times are in milliseconds. */
export interface FeedStatus {
  connected: boolean;
  /** How far what this process knows may be behind the authority's store; Infinity before the first beat. */
  age: number;
  /** What the last revocations were under way, from the store to here, at most; 0 before the first. */
  lag: number;
  /** Of the last frame; undefined before the first. */
  position: string | undefined;
  /** Connections that were made, and entries and events that this version does not know. */
  connections: number;
  skipped: number;
}

/**
 * Follows the authority's feed: applies what it tells to the table, and knows how far behind it may be. It is tested
 * when a decision is made, not by a timer, so that a paused process does not take itself for up to date.
 */
export class Follower {
  #position: string | undefined;
  /** The monotonic time up to which everything that the store had is applied. */
  #completeTo = -Infinity;
  /** The earliest monotonic time at which the node's clock can have shown 0, found at #pinned. */
  #zero = -Infinity;
  #pinned = 0;
  #silence = firstSilence;
  #behind: number | undefined; // since when nodes say that they are behind us
  #node: string | undefined;
  #parted = NaN; // wall minus monotonic clock, when the connection was made
  #whole = false; // everything that is retained has come, once
  #retry = firstRetry;
  #connections = 0;
  #skipped = 0;
  #complained = -Infinity;
  #lag = 0;
  #worstLag = 0; // since it was reported
  #stream: { res: IncomingMessage; sent: number } | undefined;
  #ending: AbortController | undefined; // of the connection under way
  #timers: NodeJS.Timeout[] = [];
  #closed = false;
  #background = false;

  constructor(
    private readonly client: Client,
    private readonly authorize: () => Record<string, string>,
    private readonly table: RevocationTable,
    private readonly keys: RemoteKeys,
    private readonly clock: Clock,
    private readonly log: Logger,
    /** Called after each beat of a complete stream. */
    private readonly beaten: () => void,
    /** Called when the machine may have been suspended. */
    private readonly woke: () => void,
  ) {}

  started = false;

  start(): void {
    this.started = true;
    void this.#run();
  }

  /** From now on the connection alone keeps no process alive. */
  background(): void {
    this.#background = true;
    this.#stream?.res.socket.unref();
  }

  close(): void {
    this.#closed = true;
    this.#ending?.abort();
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** Whether everything that is retained has come, once, and the keys are as new as the feed says. */
  get ready(): boolean {
    return this.#whole && !this.keys.outdated;
  }

  get status(): FeedStatus {
    return {
      connected: this.#stream !== undefined,
      age: this.age(),
      lag: this.#lag,
      position: this.#position,
      connections: this.#connections,
      skipped: this.#skipped,
    };
  }

  /** How far what was applied may be behind the store, in milliseconds. */
  age(): number {
    this.#checkClocks();
    return this.clock.monotonic() - this.#completeTo;
  }

  /** The monotonic clock stands still while a machine is suspended: nothing that was known of ages is true then. */
  #checkClocks(): void {
    if (!(Math.abs(this.#apart() - this.#parted) > suspended)) return;
    this.#completeTo = -Infinity;
    this.#parted = this.#apart();
    this.#ending?.abort(new Error("the clocks have parted"));
    this.woke();
  }

  #apart(): number {
    return this.clock.now() - this.clock.monotonic();
  }

  async #run(): Promise<void> {
    let least = 0;
    try {
      await this.#follow();
    } catch (error) {
      if (this.#closed) return;
      this.#complain(error);
      if (error instanceof StatusError) least = this.#refused(error);
    }
    // Full jitter: after a restart of the authority not everybody comes at the same moment.
    const wait = Math.min(least, longestRetry) + Math.random() * this.#retry;
    this.#retry = Math.min(2 * this.#retry, longestRetry);
    this.#timer(wait, () => void this.#run());
  }

  /** Returns how long to wait at least. */
  #refused(error: StatusError): number {
    if (error.status !== 503) {
      this.#behind = undefined;
      return error.status >= 500 || error.status === 429 ? (error.retryAfter ?? 0) * 1000 : refusedRetry;
    }
    // Where no node gets as far as we are for so long, the store may have lost what we have heard. What is retained now
    // is then told from the start; what we know stays known.
    const now = this.clock.monotonic();
    this.#behind ??= now;
    if (now - this.#behind > behindFor) this.#behind = this.#position = undefined;
    return (error.retryAfter ?? 0) * 1000;
  }

  #complain(error: unknown): void {
    const now = this.clock.monotonic();
    if (now - this.#complained < 10_000) return;
    this.#complained = now;
    const status = error instanceof StatusError ? error.status : 0;
    if (status === 401 || status === 403) this.log.error("the authority refuses the API key for the feed: apiKey needs the scope verify");
    else this.log.warn(`the feed of revocations is cut, and followed again: ${textOf(error)}`);
  }

  /** Follows one connection to its end, and throws why it ended. */
  async #follow(): Promise<never> {
    this.#checkClocks();
    const ending = (this.#ending = new AbortController());
    const deadline = later(headTimeout, () => ending.abort(new Error("no answer in time")));
    const parted = this.#apart();
    const sent = this.clock.monotonic();
    let pins: NodeJS.Timeout | undefined;
    try {
      const res = await this.client.send("/v1/revocations", {
        headers: {
          Accept: "text/event-stream",
          "Accept-Encoding": "identity", // what compresses holds back
          "Cache-Control": "no-cache",
          ...this.authorize(),
          ...(this.#position === undefined ? {} : { "Last-Event-ID": this.#position }),
        },
        signal: ending.signal,
        alone: true,
      });
      clearTimeout(deadline);
      if (res.statusCode !== 200 || !/^text\/event-stream\s*(;|$)/i.test(res.headers["content-type"] ?? "")) {
        res.destroy();
        throw res.statusCode === 200 ? new Error("the answer is no event stream") : new StatusError(res.statusCode ?? 0, retryAfter(res.headers));
      }
      if (this.#background) res.socket.unref();
      this.#parted = parted;
      this.#behind = undefined;
      this.#node = undefined;
      this.#stream = { res, sent };
      this.#connections++;
      pins = setInterval(() => void this.#pin(), pinEvery).unref();
      await this.#read(res);
      throw new Error("the stream has ended");
    } catch (error) {
      throw ending.signal.aborted && ending.signal.reason instanceof Error ? ending.signal.reason : error;
    } finally {
      clearTimeout(deadline);
      clearInterval(pins);
      this.#stream = undefined;
    }
  }

  async #read(res: IncomingMessage): Promise<void> {
    const reader = new FrameReader();
    let silent = false;
    const dead = later(this.#silence, () => {
      silent = true;
      res.destroy(new Error("nothing was heard for too long"));
    });
    // All up to our place has been heard: a beat tells the age of what we know.
    const heard = { whole: this.#position !== undefined };
    try {
      for await (const chunk of res as AsyncIterable<Buffer>) {
        dead.refresh();
        for (const frame of reader.push(chunk)) this.#take(frame, heard);
      }
    } finally {
      clearTimeout(dead);
      this.#silence = silent ? Math.min(2 * this.#silence, longestSilence) : firstSilence;
    }
  }

  #take(frame: Frame, heard: { whole: boolean }): void {
    this.#skipped += frame.skipped;
    switch (frame.kind) {
      case "snapshot":
        // It may come where we asked for less. Until its end there is no place to go on from.
        this.#apply(frame.entries);
        this.#position = frame.position;
        heard.whole = frame.position !== undefined;
        return;
      case "live":
        if (!heard.whole) throw new Error("the feed began without a snapshot");
        this.#apply(frame.entries);
        this.#heard();
        if (frame.position === undefined) return;
        if (timeline(frame.position) !== timeline(this.#position!)) {
          this.#position = undefined;
          throw new Error("the feed went over to another timeline");
        }
        this.#position = frame.position;
        return;
      case "beat":
        if (heard.whole) this.#beat(frame.beat);
    }
  }

  /**
   * `until` is told by the clock of another machine; where that is behind, an entry would leave while tokens live that
   * it refuses.
   */
  #apply(entries: readonly Entry[]): void {
    const now = Math.ceil(this.clock.now() / 1000);
    const least = now + this.keys.longest + margin;
    const most = now + longestToken + margin;
    this.table.apply(entries.map((e) => (e.until === 0 ? e : { ...e, until: Math.min(Math.max(e.until, least), most) })));
  }

  /** Takes note of new revocations: none of them was told to the store before it was last known to be read. */
  #heard(): void {
    const lag = this.age();
    if (lag === Infinity) return;
    this.#lag = lag;
    this.#worstLag = Math.max(this.#worstLag, lag);
  }

  /** What the operator of the authority should know: the worst since the last report, or how it is now. */
  #report(): Record<string, string> {
    const lag = this.#worstLag || this.age();
    this.#worstLag = 0;
    return lag === Infinity ? {} : { "Counterfoil-Lag-Ms": String(Math.max(0, Math.round(lag))) };
  }

  #beat(beat: Beat): void {
    this.#checkClocks();
    const t = this.clock.monotonic();
    if (this.#node !== beat.node) {
      // The node has stamped its first beat after the request was sent.
      if (this.#node === undefined) this.#timer(Math.random() * 1000, () => void this.#pin());
      this.#node = beat.node;
      this.#zero = this.#stream!.sent - beat.now * 1000;
      this.#pinned = t;
    }
    const at = this.#zero + beat.now * 1000 - beat.ageMs - drift * (t - this.#pinned);
    if (at > t + suspended) throw new Error("a beat is of a time to come");
    this.#completeTo = Math.max(this.#completeTo, Math.min(at, t));
    this.#retry = firstRetry;
    this.#whole = true;
    this.keys.announce(beat.keys);
    this.beaten();
  }

  /** Ties the node's clock to ours anew, since no two clocks run alike. */
  async #pin(): Promise<void> {
    const stream = this.#stream;
    const sent = this.clock.monotonic();
    try {
      const { node, now } = parseClock((await this.client.json("/v1/revocations/clock", [], { headers: { ...this.authorize(), ...this.#report() } })).text);
      if (stream === undefined || stream !== this.#stream) return;
      const t = this.clock.monotonic();
      if (node === this.#node) {
        // An answer that took long says little: the older word may still be the better one, unless it is refuted.
        const old = this.#zero - drift * (t - this.#pinned);
        const least = sent - now * 1000;
        this.#zero = old > least && old <= t - now * 1000 ? old : least;
        this.#pinned = t;
        return;
      }
    } catch (error) {
      this.log.debug?.(`the clock of the feed could not be read: ${textOf(error)}`);
    }
    if (stream === this.#stream && this.clock.monotonic() - this.#pinned > pinsUntil) {
      this.#ending?.abort(new Error("the clock of the feed's node could not be read for too long"));
    }
  }

  #timer(ms: number, call: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.splice(this.#timers.indexOf(timer), 1);
      call();
    }, ms);
    if (this.#background) timer.unref();
    this.#timers.push(timer);
  }
}

function timeline(position: string): string {
  return position.slice(0, position.indexOf("."));
}
