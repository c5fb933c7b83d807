import { CounterfoilError, unavailable, type EndCode } from "./errors.js";
import type { Grant } from "./answer.js";
import type { Session, State } from "./types.js";
import type { Platform, Signal, Wake } from "./platform.js";

/** A moment on both clocks: the monotonic one, which sleep may stop, and the wall clock, which may be set. */
type Moment = readonly [mono: number, wall: number];
type Wait = { from: Moment; ms: number };
type Waiter = { done(result: Grant | CounterfoilError): void; from: Moment; renews: boolean };
type Flight = { number: number; from: Moment; active: boolean; abort(): void };
type Token = Grant & { number: number; from: Moment };

/** What the machine does to the world. `send` must not call back before it returns. */
export interface Ports extends Pick<Platform, "mono" | "wall" | "random" | "timer" | "visible" | "post"> {
  /** Sends one refresh, and calls back with its outcome, if ever. Returns what aborts it. */
  send(active: boolean, done: (result: Grant | CounterfoilError) => void): () => void;
  changed(state: State): void;
}

/** Milliseconds. */
export interface Limits {
  /** One refresh. */
  timeout: number;
  /** A wait for a token. */
  wait: number;
  /** What sign-ins bring is for another service. */
  foreign: boolean;
}

const budget = 10; // refreshes at once
const perRefill = 5_000; // one more
const mostTold = 300_000; // of Retry-After: a proxy's mistake must not cost a day
const mostBackoff = 60_000;
const idle = 300_000; // between the refreshes of a hidden page that asks for no token, and of what waiting does not mend
const otherTabs = 30_000; // how long another tab's call may take
const landing = 1_500; // for a cookie on its way into the jar
const manyFailures = 3;

const late = () => unavailable("the authority did not answer in time");

/**
 * Decides when to refresh and what an answer means; knows no promise, no browser and no wire. Whatever happens is told to
 * it; each time it looks at everything it knows, in #step, and sets the one timer for the next time that matters.
 */
export class Machine {
  state: State = { status: "starting" };
  /** Refreshes sent and grants taken over so far. */
  count = 0;
  /** Milliseconds that the wall clock is ahead of the authority's. */
  skew = 0;
  /** Sign-ins and the like seen so far, in this tab and in others. */
  generation = 0;
  #token: Token | undefined;
  #session: Session | undefined;
  #flight: Flight | undefined;
  #failures = 0;
  #error = unavailable("the authority has not answered yet");
  #backoff: Wait | undefined; // ours
  #told: Wait | undefined; // the authority's
  #doubt: { error: CounterfoilError; wait: Wait } | undefined; // it said once that the session has ended
  #busy = 0; // own calls that may replace the cookie
  #hold: Wait | undefined; // the same in other tabs
  #left = false; // the user signed out in another tab
  #force = false; // refresh, whatever is at hand
  #touched: boolean;
  #used = false;
  #credit = budget;
  #filled: Moment;
  #probed: Moment | undefined;
  readonly #waiters = new Set<Waiter>();
  #cancel = () => {};
  #closed = false;
  #key = "";

  constructor(
    private readonly ports: Ports,
    private readonly limits: Limits,
  ) {
    this.#touched = ports.visible();
    this.#filled = this.now();
  }

  now(): Moment {
    return [this.ports.mono(), this.ports.wall()];
  }

  /** The greater of the two: a clock that stood still or was set back must not make a token young. */
  #since(then: Moment): number {
    return Math.max(this.ports.mono() - then[0], this.ports.wall() - then[1], 0);
  }

  #rest(wait: Wait | undefined): number {
    return wait ? wait.ms - this.#since(wait.from) : 0;
  }

  #valid(): Token | undefined {
    const token = this.#token;
    return token && this.#since(token.from) < token.life ? token : undefined;
  }

  /** Gives a valid token before it returns if there is one; otherwise within limits.wait. */
  want(done: Waiter["done"]): void {
    this.#used = true;
    const token = this.#valid();
    if (token) done(token);
    else this.#wait(done, false);
    this.step();
  }

  /** Gives another token than one that was refused. */
  renew(refused: string, done: Waiter["done"]): void {
    this.#used = true;
    const token = this.#valid();
    if (token && token.token !== refused) done(token);
    else this.#wait(done, true);
    this.step();
  }

  #wait(done: Waiter["done"], renews: boolean): void {
    const { status } = this.state;
    // What is being asked again may have an end other than the last.
    if (this.#closed || ((status === "ended" || status === "signed-out") && !this.#flight && !this.#force)) done(this.#error);
    else this.#waiters.add({ done, from: this.now(), renews });
  }

  #settle(result: Grant | CounterfoilError, which: (waiter: Waiter) => boolean = () => true): void {
    for (const waiter of this.#waiters) {
      if (!which(waiter)) continue;
      this.#waiters.delete(waiter);
      waiter.done(result);
    }
  }

  /** Looks at everything. Any call at any time is right. */
  step(): void {
    if (this.#closed) return;
    const flight = this.#flight;
    if (flight && this.#since(flight.from) >= this.limits.timeout) {
      flight.abort();
      this.#answered(flight.number, late());
      return;
    }
    // The last token has died while refreshing did not succeed.
    if (this.#failures > 0 && this.state.status === "signed-in" && !this.#valid()) this.#troubled();
    let rest: number;
    if (!flight && this.#needed()) {
      rest = Math.max(this.#rest(this.#backoff), this.#rest(this.#told), this.#broke(), this.#doubting());
      if (rest <= 0) this.#send();
      else this.#settle(this.#error, (waiter) => this.#failures >= manyFailures || (waiter.renews && this.#broke() > 0) || rest > this.limits.wait - this.#since(waiter.from));
    } else {
      rest = flight ? Infinity : this.#due();
    }
    if (this.#flight) rest = this.limits.timeout - this.#since(this.#flight.from);
    this.#settle(this.#error, (waiter) => {
      const left = this.limits.wait - this.#since(waiter.from);
      rest = left > 0 ? Math.min(rest, left) : rest;
      return left <= 0;
    });
    const token = this.#failures > 0 && this.#valid();
    if (token) rest = Math.min(rest, token.life - this.#since(token.from));
    this.#cancel();
    this.#cancel = rest < Infinity ? this.ports.timer(Math.min(Math.max(rest, 1), idle), () => this.step()) : () => {};
  }

  #needed(): boolean {
    return this.#force || this.#doubt !== undefined || this.#waiters.size > 0 || this.#due() <= 0;
  }

  /** Milliseconds until a refresh in the background. */
  #due(): number {
    const { status } = this.state;
    if (status === "ended" || status === "signed-out") return Infinity;
    const token = this.#token;
    if (!token) return 0;
    return (this.ports.visible() || this.#used ? token.refreshAfter : Math.max(token.refreshAfter, idle)) - this.#since(token.from);
  }

  /** Milliseconds until the budget allows a refresh. */
  #broke(): number {
    const gained = Math.floor(this.#since(this.#filled) / perRefill);
    if (gained > 0) {
      this.#credit = Math.min(budget, this.#credit + gained);
      this.#filled = this.now();
    }
    return this.#credit > 0 ? 0 : perRefill - this.#since(this.#filled);
  }

  /** Milliseconds until it makes sense to ask for the second time whether the session has ended. */
  #doubting(): number {
    if (!this.#doubt) return 0;
    return Math.max(this.#rest(this.#doubt.wait), this.#busy ? landing : this.#rest(this.#hold));
  }

  #send(): void {
    const number = ++this.count;
    const active = this.#touched;
    this.#credit--;
    this.#force = this.#used = this.#touched = false;
    const flight: Flight = { number, from: this.now(), active, abort() {} };
    this.#flight = flight;
    flight.abort = this.ports.send(active, (result) => this.#answered(number, result));
  }

  #answered(number: number, result: Grant | CounterfoilError): void {
    const flight = this.#flight;
    if (flight?.number !== number) return; // it tells of before a sign-in, or was given up
    // A page that was frozen may get the answer before its own timer: what it says is as old as the question.
    if (this.#since(flight.from) > this.limits.timeout) result = late();
    this.#flight = undefined;
    if (result instanceof CounterfoilError) {
      this.#touched ||= flight.active;
      this.#refused(result);
    } else {
      this.#take(result, number, flight.from);
    }
    this.step();
  }

  #take(grant: Grant, number: number, from: Moment): void {
    // Without a little of our own, tabs that were opened together refresh together.
    const spread = this.ports.random() * 0.1 * Math.max(0, grant.life - grant.refreshAfter);
    this.#token = { ...grant, refreshAfter: grant.refreshAfter + spread, number, from };
    this.#signedIn(grant.session);
    if (grant.serverTime) this.skew = this.ports.wall() - grant.serverTime;
    this.#settle(this.#token);
  }

  #signedIn(session: Session): void {
    this.#session = session;
    this.#failures = 0;
    this.#backoff = this.#doubt = undefined;
    this.#left = false;
    this.#set({ status: "signed-in", session });
  }

  #refused(error: CounterfoilError): void {
    const missing = error.code === "credential_missing";
    const known = this.state.status === "ended" || this.state.status === "signed-out";
    if (error.ended && !this.#doubt && this.state.status !== "ended") {
      // Another tab may have signed in anew, or replaced the secret: once more, with the cookies as they are then.
      const ms = error.code === "session_unknown" || error.reason === "replaced" ? landing : 0;
      this.#doubt = { error, wait: { from: this.now(), ms } };
      this.#backoff = undefined;
    } else if (error.ended || (missing && this.#doubt)) {
      this.#end(this.#doubt && (missing || !error.reason) ? this.#doubt.error : error);
    } else if (missing && (this.#left || !this.#session)) {
      if (!known || this.#left) this.#signedOut(error);
      this.#settle(this.#error);
    } else {
      this.#later(error);
    }
  }

  #end(error: CounterfoilError): void {
    this.#drop(error);
    this.#set({ status: "ended", code: error.code as EndCode, reason: error.reason, endedAt: error.endedAt, sid: error.sid });
  }

  /** Nobody is signed in here. */
  #signedOut(error = new CounterfoilError("credential_missing", "nobody is signed in here", { status: 401 })): void {
    this.forget();
    this.#drop(error);
    this.#set({ status: "signed-out" });
  }

  /**
   * The user signed out in this tab, by a call that began at `from`, in that generation. If it took long, or somebody
   * signed in since, the cookie may be a newer one: the authority tells.
   */
  signOut(generation: number, from: Moment): void {
    if (generation === this.generation && this.#since(from) < this.limits.timeout) this.#signedOut();
    else this.#leave();
    this.step();
  }

  #leave(): void {
    this.forget();
    this.#token = undefined;
    this.#left = this.#force = true;
  }

  #drop(error: CounterfoilError): void {
    this.#token = this.#session = this.#doubt = this.#backoff = undefined;
    this.#left = this.#force = false;
    this.#failures = 0;
    this.#error = error;
    this.#settle(error);
  }

  #later(error: CounterfoilError): void {
    // What waiting does not mend is seldom tried, and nobody waits for it.
    const transient = error.status === 0 || error.status === 429 || error.status >= 500 || error.code === "unavailable" || error.code === "proof_required";
    this.#failures = transient ? this.#failures + 1 : Math.max(manyFailures, this.#failures + 1);
    const random = this.ports.random();
    const ms = transient ? Math.min(mostBackoff, 1000 * 2 ** (this.#failures - 1)) : idle;
    this.#backoff = { from: this.now(), ms: ms * (0.5 + random / 2) };
    if (error.retryAfter) {
      const told = Math.min(mostTold, error.retryAfter * 1000) * (1 + 0.2 * random);
      this.#tell(told);
      this.ports.post({ type: "wait", ms: told });
    }
    if (this.state.status === "ended" || this.state.status === "signed-out") {
      this.#settle(this.#error);
      return;
    }
    this.#error = error;
    if (!this.#valid()) this.#troubled();
  }

  #troubled(): void {
    this.#set({ status: "refreshing-later", code: this.#error.code, session: this.#session });
  }

  #tell(ms: number): void {
    this.#told = { from: this.now(), ms: Math.min(mostTold * 1.2, Math.max(ms, this.#rest(this.#told))) };
  }

  #set(state: State): void {
    this.state = state;
    const { session, code } = state as { session?: Session; code?: string };
    const key = [state.status, code, session?.sid, session?.authTime].join();
    if (key !== this.#key) this.ports.changed(state);
    this.#key = key;
  }

  /** Lets go of what is on its way: its answer tells of cookies before these. */
  forget(): void {
    this.#flight?.abort();
    this.#flight = this.#doubt = this.#backoff = undefined;
  }

  /** Takes over the grant of an own call that began at `from`. */
  adopt(grant: Grant, from: Moment): void {
    this.generation++;
    this.forget();
    if (this.limits.foreign) {
      this.#token = undefined;
      this.#force = true;
      this.#signedIn(grant.session);
    } else {
      this.#take(grant, ++this.count, from);
    }
    this.ports.post({ type: "changed" });
    this.step();
  }

  /** An own call that may replace the cookie: begins with 1, is over with -1. */
  busy(by: 1 | -1): void {
    this.#busy += by;
    this.ports.post({ type: by > 0 ? "begin" : "end" });
    this.step();
  }

  /** Something may have happened to the session. */
  check(): void {
    this.#force = true;
    this.step();
  }

  touch(): void {
    this.#touched = true;
  }

  wake(wake: Wake): void {
    this.#backoff = undefined; // never what the authority told
    const { status } = this.state;
    if (wake === "visible" || wake === "back") this.#touched = true;
    if (wake === "back") this.#force = true;
    // The user may have signed in somewhere that gives no signals.
    else if ((status === "ended" || status === "signed-out") && (!this.#probed || this.#since(this.#probed) >= 2 * perRefill)) {
      this.#probed = this.now();
      this.#force = true;
    }
    this.step();
  }

  signal(message: unknown): void {
    const signal = (message ?? {}) as Partial<Signal> & { sid?: unknown; ms?: unknown };
    switch (signal.type) {
      case "begin":
        this.#hold = { from: this.now(), ms: otherTabs };
        break;
      case "end":
        this.#hold = undefined;
        break;
      case "changed":
        this.#hold = undefined;
        this.generation++;
        this.forget();
        this.#force = true;
        break;
      case "left":
        if (signal.sid && signal.sid !== this.#session?.sid) return;
        if (this.#session) this.#leave();
        break;
      case "check":
        this.#force = true;
        break;
      case "wait":
        if (typeof signal.ms === "number") this.#tell(signal.ms);
    }
    this.step();
  }

  close(): void {
    this.#closed = true;
    this.forget();
    this.#cancel();
    this.#settle((this.#error = unavailable("the session object was closed")));
  }
}
