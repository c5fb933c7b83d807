import { grantOf, named, read, type Grant } from "./answer.js";
import { CounterfoilError, unavailable } from "./errors.js";
import { createFetch } from "./fetch.js";
import { Machine } from "./machine.js";
import type { Platform } from "./platform.js";
import type { BrowserSession, Options, Session, State } from "./types.js";
import { createWatch } from "./watch.js";

const slow = 30_000; // for calls of which each is one try: a password takes its time

/** The session on a platform; `createSession` is this one on the browser's. */
export function createCore(p: Platform, options: Options = {}): BrowserSession {
  const authority = new URL(options.authority ?? "/auth", p.base).href.replace(/\/$/, "");
  const timeout = (options.timeout ?? 10) * 1000;
  const listeners = new Set<(state: State) => void>();
  let started: (state: State) => void;
  const ready = new Promise<State>((done) => (started = done));

  /** One request to the authority, over in `ms` whatever fetch does. */
  function request(method: string, path: string, body: object | undefined, ms: number): { answer: Promise<unknown>; abort(): void } {
    const controller = new AbortController();
    const abort = () => controller.abort();
    const init: RequestInit = { method, credentials: "include", redirect: "error", cache: "no-store", signal: controller.signal };
    if (body) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json" };
    }
    const answer = new Promise<unknown>((done, fail) => {
      const cancel = p.timer(ms, () => (abort(), fail(unavailable("the authority did not answer in time"))));
      read(p.fetch(authority + path, init)).then(done, fail).finally(cancel);
    });
    return { answer, abort };
  }

  const machine = new Machine(
    {
      ...bound(p),
      send(active, done) {
        const body = { ...(options.audience && { audience: options.audience }), ...(!active && { active }) };
        const { answer, abort } = request("POST", "/refresh", body, 2 * timeout); // the machine's own comes first
        answer.then((value) => done(grantOf(value) ?? unavailable("the answer is not the authority's")), done);
        return abort;
      },
      changed(state) {
        started(state);
        watch?.(state.status === "signed-in" && p.visible());
        // Later, so that a listener may call anything; each for itself, so that one may throw.
        for (const listener of listeners) queueMicrotask(() => listeners.has(listener) && listener(state));
      },
    },
    { timeout, wait: (options.wait ?? 15) * 1000, foreign: !!options.audience },
  );

  /** The current token, or another one than that which was refused. */
  function token(refused?: string): Promise<string> {
    return new Promise((done, fail) => {
      const settle = (result: Grant | CounterfoilError) => (result instanceof CounterfoilError ? fail(result) : done(result.token));
      if (refused) machine.renew(refused, settle);
      else machine.want(settle);
    });
  }

  /** A call of the user's. Nothing is repeated. */
  async function call(method: string, path: string, body?: object): Promise<unknown> {
    const reads = method === "GET";
    const from = machine.now();
    if (!reads) machine.busy(1);
    try {
      const answer = await request(method, path, reads ? undefined : body ?? {}, slow).answer;
      const grant = grantOf(answer);
      if (grant) machine.adopt(grant, from);
      return answer;
    } catch (error) {
      // The session may have ended; or the answer was lost, and what was asked for has happened.
      if (!(error instanceof CounterfoilError) || error.ended || (!reads && error.status === 0)) machine.check();
      throw error;
    } finally {
      if (!reads) machine.busy(-1);
    }
  }

  async function start(path: string, body: object): Promise<Session> {
    const grant = grantOf(await call("POST", path, { ...body, ...(options.clientId && { client_id: options.clientId }) }));
    if (!grant) throw unavailable("the answer is not the authority's");
    return grant.session;
  }

  async function signOut(body: { which: string } | { sid: string }): Promise<void> {
    const { state, generation } = machine;
    const from = machine.now();
    const sid = state.status === "signed-in" || state.status === "refreshing-later" ? state.session?.sid : undefined;
    const all = "which" in body && body.which === "all";
    const here = all || ("which" in body ? body.which === "this" : body.sid === sid);
    try {
      // A portal on the way answers 200 to anything.
      if ((await call("POST", "/sign-out", body)) !== undefined) throw unavailable("the answer is not the authority's");
    } catch (error) {
      // Without a cookie there is nothing to sign out of here.
      if (!here || !(error instanceof CounterfoilError) || error.code !== "credential_missing") throw error;
    }
    if (!here) return;
    machine.signOut(generation, from);
    p.post({ type: "left", sid: all ? undefined : sid });
  }

  const watch = options.watch
    ? createWatch(p, authority + "/session/watch", () => {
        machine.check();
        p.post({ type: "check" });
      })
    : undefined;
  const deaf = p.listen({
    wake(wake) {
      machine.wake(wake);
      watch?.(machine.state.status === "signed-in" && p.visible());
    },
    hidden: () => watch?.(false),
    touch: () => machine.touch(),
    signal: (signal) => machine.signal(signal),
  });
  machine.step();

  return {
    get state() {
      return machine.state;
    },
    get clockSkew() {
      return machine.skew / 1000;
    },
    ready,
    onChange(listener) {
      const own = (state: State) => listener(state);
      listeners.add(own);
      return () => void listeners.delete(own);
    },
    getToken: () => token(),
    fetch: createFetch(
      p,
      {
        machine,
        token: (refused) =>
          token(refused).catch((error: unknown) => {
            const { status } = machine.state;
            if (status === "signed-out" || status === "ended") return undefined;
            throw error;
          }),
      },
      options,
    ),
    signIn: ({ email, password }) => start("/sign-in", { email, password }),
    signUp: ({ email, password }) => start("/sign-up", { email, password }),
    signOut: (which = "this") => signOut({ which }),
    async stepUp(proof) {
      const grant = grantOf(await call("POST", "/step-up", proof));
      if (!grant) throw unavailable("the answer is not the authority's");
      return grant.session;
    },
    devices: {
      async list() {
        const all: Session[] = [];
        for (let next = ""; ; ) {
          const page = named(await call("GET", "/sessions" + next)) as { sessions: Session[]; next?: string };
          all.push(...page.sessions);
          if (!page.next) return all;
          next = "?after=" + encodeURIComponent(page.next);
        }
      },
      end: (sid) => signOut({ sid }),
      endOthers: () => signOut({ which: "others" }),
    },
    call,
    close() {
      deaf();
      listeners.clear();
      watch?.(false);
      machine.close();
    },
  };
}

/** The methods that the machine needs, whatever kind of object the platform is. */
function bound(p: Platform) {
  return {
    mono: () => p.mono(),
    wall: () => p.wall(),
    random: () => p.random(),
    timer: (ms: number, call: () => void) => p.timer(ms, call),
    visible: () => p.visible(),
    post: (signal: Parameters<Platform["post"]>[0]) => p.post(signal),
  };
}
