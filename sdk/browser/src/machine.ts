import { CounterfoilError, unavailable, type EndCode } from "./errors.js";
import type { Grant } from "./answer.js";
import type { Session, State } from "./types.js";
import type { Platform, Signal, Wake } from "./platform.js";

/** A moment on both clocks: the monotonic one, which sleep may stop, and the wall clock, which may be set. */
export type Moment = readonly [mono: number, wall: number];
/** How a wait for a token ends. */
export type Done = (result: Grant | CounterfoilError) => void;

type Wait = { from: Moment; ms: number };
type Waiter = { done: Done; from: Moment; renews: boolean; subject: string | undefined };
type Flight = { number: number; from: Moment; active: boolean; abort(): void };
type Token = Grant & { from: Moment };

/** What the machine is made with. Durations in milliseconds. */
export interface Settings {
  /** Sends one refresh, and calls back with its outcome, if ever, but not before it returns. Returns what aborts it. */
  send(active: boolean, done: Done): () => void;
  changed(state: State): void;
  /** One refresh may take as long. */
  timeout: number;
  /** A wait for a token may take as long. */
  patience: number;
  /** The tokens that sign-ins bring are for another service. */
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

/**
 * Decides when to refresh and what an answer means; knows no promise, no browser and no wire. Whatever happens is told to
 * it; each time it looks at everything it knows, in `step`, and sets the one timer for the next time that matters.
 */
export type Machine = ReturnType<typeof createMachine>;

export function createMachine(p: Pick<Platform, "mono" | "wall" | "random" | "timer" | "visible" | "post">, { send, changed, timeout, patience, foreign }: Settings) {
  let state: State = { status: "starting" };
  let key = "";
  let count = 0; // refreshes sent and grants taken over
  let generation = 0; // sign-ins and the like, in this tab and in others
  let skew = 0;
  let token: Token | undefined;
  let session: Session | undefined;
  let flight: Flight | undefined;
  let failures = 0;
  let trouble = unavailable(); // the last
  let backoff: Wait | undefined; // ours
  let told: Wait | undefined; // the authority's
  let doubt: { error: CounterfoilError; wait: Wait } | undefined; // it said once that the session has ended
  let own = 0; // own calls that may replace the cookie
  let others: Wait | undefined; // the same in other tabs
  let left = false; // the user signed out
  let force = false; // refresh, whatever is at hand
  let touched = p.visible();
  let used = false;
  let credit = budget;
  let filled = now();
  let cancel = () => {};
  let closed = false;
  const waiters = new Set<Waiter>();

  function now(): Moment {
    return [p.mono(), p.wall()];
  }

  /** The greater of the two: a clock that stood still or was set back must not make a token young. */
  function since(then: Moment): number {
    return Math.max(p.mono() - then[0], p.wall() - then[1], 0);
  }

  function rest(wait: Wait | undefined): number {
    return wait ? wait.ms - since(wait.from) : 0;
  }

  function valid(): Token | undefined {
    return token && since(token.from) < token.life ? token : undefined;
  }

  function over(): boolean {
    return state.status === "ended" || state.status === "signed-out";
  }

  function settle(result: Grant | CounterfoilError, which: (waiter: Waiter) => boolean = () => true): void {
    for (const waiter of waiters) {
      if (which(waiter)) {
        waiters.delete(waiter);
        waiter.done(result);
      }
    }
  }

  /** Looks at everything. Any call at any time is right. */
  function step(): void {
    if (closed) return;
    if (flight && since(flight.from) >= timeout) {
      flight.abort();
      answered(flight.number, unavailable());
      return;
    }
    // The last token has died while refreshing did not succeed.
    if (failures && state.status === "signed-in" && !valid()) troubled();
    let next = flight ? Infinity : due();
    if (!flight && (force || doubt || waiters.size || next <= 0)) {
      const broke = poor();
      next = Math.max(rest(backoff), rest(told), broke, doubting());
      if (next > 0) settle(trouble, (waiter) => failures >= manyFailures || (waiter.renews && broke > 0) || next > patience - since(waiter.from));
      else refresh();
    }
    if (flight) next = timeout - since(flight.from);
    settle(trouble, (waiter) => {
      const left = patience - since(waiter.from);
      if (left > 0) next = Math.min(next, left);
      return left <= 0;
    });
    if (failures && valid()) next = Math.min(next, token!.life - since(token!.from));
    cancel();
    cancel = next < Infinity ? p.timer(Math.min(Math.max(next, 1), idle), step) : () => {};
  }

  /** Milliseconds until a refresh in the background. */
  function due(): number {
    if (over()) return Infinity;
    if (!token) return 0;
    return (p.visible() || used ? token.refreshAfter : idle) - since(token.from);
  }

  /** Milliseconds until the budget allows a refresh. */
  function poor(): number {
    const gained = Math.floor(since(filled) / perRefill);
    if (gained) {
      credit = Math.min(budget, credit + gained);
      filled = now();
    }
    return credit > 0 ? 0 : perRefill - since(filled);
  }

  /** Milliseconds until it makes sense to ask for the second time whether the session has ended. */
  function doubting(): number {
    return doubt ? Math.max(rest(doubt.wait), own ? landing : rest(others)) : 0;
  }

  function refresh(): void {
    const number = ++count;
    flight = { number, from: now(), active: touched, abort() {} };
    credit--;
    force = used = touched = false;
    flight.abort = send(flight.active, (result) => answered(number, result));
  }

  function answered(number: number, result: Grant | CounterfoilError): void {
    const answers = flight;
    if (answers?.number !== number) return; // it tells of before a sign-in, or was given up
    flight = undefined;
    // A page that was frozen may get the answer before its own timer: what it says is as old as the question.
    if (since(answers.from) > timeout) result = unavailable();
    if (result instanceof CounterfoilError) {
      touched ||= answers.active;
      refused(result);
    } else {
      take(result, answers.from);
    }
    step();
  }

  function take(grant: Grant, from: Moment): void {
    // Without a little of our own, tabs that were opened together refresh together.
    const spread = p.random() * 0.1 * (grant.life - grant.refreshAfter);
    token = { ...grant, refreshAfter: grant.refreshAfter + spread, from };
    if (grant.serverTime) skew = p.wall() - grant.serverTime;
    signedIn(grant.session);
    // What one user has asked for is not done as another who signed in meanwhile.
    settle(token, ({ subject = grant.session.subject }) => subject === grant.session.subject);
    settle(new CounterfoilError("conflict", "another user has signed in"));
  }

  function signedIn(by: Session): void {
    session = by;
    failures = 0;
    backoff = doubt = undefined;
    left = false;
    set({ status: "signed-in", session });
  }

  function refused(error: CounterfoilError): void {
    const missing = error.code === "credential_missing";
    if (error.ended && !doubt && state.status !== "ended") {
      // Another tab may have signed in anew, or replaced the secret: once more, with the cookies as they are then.
      const ms = error.code === "session_unknown" || error.reason === "replaced" ? landing : 0;
      doubt = { error, wait: { from: now(), ms } };
      backoff = undefined;
    } else if (error.ended || (missing && doubt)) {
      // What was told first says more than that there is nothing any more.
      const end = doubt && (missing || !error.reason) ? doubt.error : error;
      drop(end);
      set({ status: "ended", code: end.code as EndCode, reason: end.reason, endedAt: end.endedAt, sid: end.sid });
    } else if (missing && (left || !session)) {
      if (left || !over()) signedOut(error);
      settle(trouble);
    } else {
      later(error);
    }
  }

  function signedOut(error = new CounterfoilError("credential_missing")): void {
    forget();
    drop(error);
    set({ status: "signed-out" });
  }

  function drop(error: CounterfoilError): void {
    token = session = doubt = backoff = undefined;
    left = force = false;
    failures = 0;
    trouble = error;
    settle(error);
  }

  function later(error: CounterfoilError): void {
    // What waiting does not mend is seldom tried, and nobody waits for it.
    const transient = !(error.status >= 400 && error.status < 500) || error.status === 429 || error.code === "unavailable" || error.code === "proof_required";
    const random = 0.5 + p.random() / 2;
    failures = transient ? failures + 1 : manyFailures;
    backoff = { from: now(), ms: random * (transient ? Math.min(mostBackoff, 500 * 2 ** failures) : idle) };
    if (error.retryAfter) {
      const ms = Math.min(mostTold, error.retryAfter * 1000) * (1 + random / 5);
      tell(ms);
      p.post({ type: "wait", ms });
    }
    if (over()) {
      settle(trouble);
    } else {
      trouble = error;
      if (!valid()) troubled();
    }
  }

  function troubled(): void {
    set({ status: "refreshing-later", code: trouble.code, session });
  }

  function tell(ms: number): void {
    told = { from: now(), ms: Math.min(mostTold * 1.2, Math.max(ms, rest(told))) };
  }

  function set(next: State): void {
    state = next;
    const { code } = state as { code?: string };
    const was = key;
    key = [state.status, code, session?.sid, session?.authTime].join();
    if (key !== was) changed(state);
  }

  /** Lets go of what is on its way: its answer tells of cookies before these. */
  function forget(): void {
    flight?.abort();
    flight = doubt = backoff = undefined;
  }

  function leave(): void {
    forget();
    token = undefined;
    left = force = true;
  }

  function wait(done: Done, refused?: string): void {
    used = true;
    const given = valid();
    if (given && given.token !== refused) done(given);
    // While it is being asked again, the end may turn out to be none.
    else if (closed || (over() && !flight && !force)) done(trouble);
    else waiters.add({ done, from: now(), renews: !!refused, subject: session?.subject });
    step();
  }

  return {
    get state() {
      return state;
    },
    get count() {
      return count;
    },
    get generation() {
      return generation;
    },
    /** Milliseconds that the wall clock is ahead of the authority's. */
    get skew() {
      return skew;
    },
    /** Nobody is signed in, as far as is known. */
    over,
    now,
    step,

    /** Gives a valid token, before it returns if there is one; of those, another than one that was refused. */
    wait,

    /** Takes over the grant of an own call that began at `from`. */
    adopt(grant: Grant, from: Moment): void {
      generation++;
      count++;
      touched = false; // the authority counts it as activity
      forget();
      if (foreign) {
        token = undefined;
        force = true;
        signedIn(grant.session);
      } else {
        take(grant, from);
      }
      p.post({ type: "changed" });
      step();
    },

    /**
     * The user signed out in this tab, by a call that began at `from`, in that generation. If it took long, or somebody
     * signed in since, the cookie may be a newer one: the authority tells.
     */
    signOut(from: Moment, when: number): void {
      if (when === generation && since(from) < timeout) signedOut();
      else leave();
      step();
    },

    /** An own call that may replace the cookie: begins with 1, is over with -1. */
    busy(by: 1 | -1): void {
      own += by;
      p.post({ type: by > 0 ? "begin" : "end" });
      step();
    },

    /** Something may have happened to the session. */
    check(): void {
      force = true;
      step();
    },

    touch(): void {
      touched = true;
    },

    wake(wake: Wake): void {
      backoff = undefined; // never what the authority told
      if (wake === "visible" || wake === "back") touched = true;
      if (wake === "back") force = true;
      // The user may have signed in somewhere that gives no signals.
      else if (over() && !flight) force = true;
      step();
    },

    signal(message: unknown): void {
      const { type, sid, ms } = (message ?? {}) as Partial<Signal> & { sid?: unknown; ms?: unknown };
      if (type === "begin") others = { from: now(), ms: otherTabs };
      if (type === "end" || type === "changed") others = undefined;
      if (type === "changed") {
        generation++;
        forget();
      }
      if (type === "changed" || type === "check") force = true;
      if (type === "left" && session && (!sid || sid === session.sid)) leave();
      if (type === "wait" && typeof ms === "number" && ms > 0) tell(ms);
      step();
    },

    close(): void {
      closed = true;
      token = undefined;
      forget();
      cancel();
      trouble = unavailable();
      settle(trouble);
    },
  };
}
