import type { IncomingMessage } from "node:http";
import { later, type Clock, type Logger } from "./clock.js";
import { textOf } from "./errors.js";
import { FrameReader, parseClock, type Beat, type Frame } from "./feed.js";
import { StatusError, retryAfter, type Client } from "./http.js";
import type { RemoteKeys } from "./keys.js";
import type { RevocationTable } from "./revocations.js";

const firstRetry = 100; // ms, after a connection has ended; doubles
const longestRetry = 10_000;
const silence = 10_000; // ms without a byte: the connection is dead
const headTimeout = 10_000; // ms until the head of the answer
const pinEvery = 30_000; // ms
const drift = 0.0002; // that two monotonic clocks may part by
const suspended = 1000; // ms that wall and monotonic clock may part by
const margin = 15; // seconds an entry lives beyond the longest token: leeway, error of the mint's clock, and once more

/** What a verifier knows of its feed. Times are in milliseconds. */
export interface FeedStatus {
  connected: boolean;
  /** How far what this process knows may be behind the authority's store; Infinity before the first beat. */
  age: number;
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
  #node: string | undefined;
  #parted = NaN; // wall minus monotonic clock, when the connection was made
  #whole = false; // everything that is retained has come, once
  #keysTold = 0; // the newest version of the keys that was heard of
  #retry = firstRetry;
  #connections = 0;
  #skipped = 0;
  #complained = -Infinity;
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
  ) {}

  start(): void {
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
    return this.#whole && this.keys.version >= this.#keysTold;
  }

  get status(): FeedStatus {
    return {
      connected: this.#stream !== undefined,
      age: this.age(),
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
  }

  #apart(): number {
    return this.clock.now() - this.clock.monotonic();
  }

  async #run(): Promise<void> {
    let wait: number | undefined;
    try {
      await this.#follow();
    } catch (error) {
      if (this.#closed) return;
      this.#complain(error);
      if (error instanceof StatusError && error.retryAfter !== undefined) wait = error.retryAfter * 1000;
    }
    if (this.#closed) return;
    // Full jitter: after a restart of the authority not everybody comes at the same moment.
    wait = Math.random() * Math.min(wait ?? this.#retry, longestRetry);
    this.#retry = Math.min(2 * this.#retry, longestRetry);
    this.#timer(wait, () => void this.#run());
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
          "Cache-Control": "no-cache",
          ...this.authorize(),
          ...(this.#position === undefined ? {} : { "Last-Event-ID": this.#position }),
        },
        signal: ending.signal,
      });
      clearTimeout(deadline);
      if (res.statusCode !== 200 || !/^text\/event-stream\s*(;|$)/i.test(res.headers["content-type"] ?? "")) {
        res.destroy();
        throw res.statusCode === 200 ? new Error("the answer is no event stream") : new StatusError(res.statusCode ?? 0, retryAfter(res.headers));
      }
      if (this.#background) res.socket.unref();
      this.#parted = parted;
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
    const dead = later(silence, () => res.destroy(new Error("nothing was heard for ten seconds")));
    try {
      for await (const chunk of res as AsyncIterable<Buffer>) {
        dead.refresh();
        for (const frame of reader.push(chunk)) this.#take(frame);
      }
    } finally {
      clearTimeout(dead);
    }
  }

  #take(frame: Frame): void {
    this.#skipped += frame.skipped;
    if (frame.kind === "beat") {
      this.#beat(frame.beat);
      return;
    }
    // `until` is told by the clock of another machine; where that is behind, an entry would leave while tokens live
    // that it refuses.
    const least = Math.ceil(this.clock.now() / 1000) + this.keys.longest + margin;
    this.table.apply(frame.entries.map((e) => (e.until === 0 ? e : { ...e, until: Math.max(e.until, least) })));
    if (frame.position !== undefined) this.#position = frame.position;
    else if (frame.kind === "snapshot") this.#position = undefined; // a reader cut in the middle of it starts over
  }

  #beat(beat: Beat): void {
    this.#checkClocks();
    if (this.#node === undefined) {
      // The node has stamped its first beat after the request was sent.
      this.#node = beat.node;
      this.#zero = this.#stream!.sent - beat.now * 1000;
      this.#pinned = this.clock.monotonic();
    }
    this.#keysTold = Math.max(this.#keysTold, beat.keys);
    this.keys.announce(beat.keys);
    if (this.#position === undefined) return; // the snapshot is not whole
    this.#completeTo = Math.max(this.#completeTo, this.#zero + beat.now * 1000 - beat.ageMs);
    this.#retry = firstRetry;
    this.#whole = true;
    this.beaten();
  }

  /** Ties the node's clock to ours anew, since no two clocks run alike. */
  async #pin(): Promise<void> {
    const stream = this.#stream;
    const sent = this.clock.monotonic();
    try {
      const { node, now } = parseClock((await this.client.json("/v1/revocations/clock", [], { headers: this.authorize() })).text);
      if (node !== this.#node || stream !== this.#stream) return; // another node behind one address
      // An answer that took long says little: the older word may still be the better one.
      this.#zero = Math.max(sent - now * 1000, this.#zero - drift * (this.clock.monotonic() - this.#pinned));
      this.#pinned = this.clock.monotonic();
    } catch (error) {
      this.log.warn(`the clock of the feed could not be read: ${textOf(error)}`);
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
