import { grantOf, named, read, type Grant } from "./answer.js";
import { CounterfoilError, unavailable } from "./errors.js";
import { createFetch } from "./fetch.js";
import { createMachine } from "./machine.js";
import type { Platform } from "./platform.js";
import type { BrowserSession, Credentials, Options, Session, State, Which } from "./types.js";

const slow = 30_000; // for calls of the user's, each one try: a password takes its time

/** The session on a platform; `createSession` is this one on the browser's. */
export function createCore(p: Platform, options: Options = {}): BrowserSession {
  const authority = new URL(options.authority ?? "/auth", p.base).href.replace(/\/$/, "");
  const { audience, clientId } = options;
  const timeout = (options.timeout ?? 10) * 1000;
  const listeners = new Set<(state: State) => void>();
  let watch: ((on: boolean) => void) | undefined;
  let open = true;
  let started: (state: State) => void;
  const ready = new Promise<State>((done) => (started = done));

  /** One request to the authority, over in `ms` whatever fetch does. */
  function request(method: string, path: string, body: object | undefined, ms: number): [Promise<unknown>, () => void] {
    const controller = new AbortController();
    const abort = () => controller.abort();
    const init: RequestInit = { method, credentials: "include", redirect: "error", cache: "no-store", signal: controller.signal };
    if (body) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json" };
    }
    const answer = new Promise<unknown>((done, fail) => {
      const cancel = p.timer(ms, () => (abort(), fail(unavailable())));
      read(p.fetch(authority + path, init)).then(done, fail).finally(cancel);
    });
    return [answer, abort];
  }

  const machine = createMachine(p, {
    timeout,
    patience: (options.wait ?? 15) * 1000,
    foreign: !!audience,
    send(active, done) {
      const body = { ...(audience && { audience }), ...(!active && { active }) };
      const [answer, abort] = request("POST", "/refresh", body, 2 * timeout); // the machine's own comes first
      answer.then((value) => done(grantOf(value) ?? unavailable()), done);
      return abort;
    },
    changed(state) {
      started(state);
      look();
      // Later, so that a listener may call anything; each for itself, so that one may throw.
      for (const listener of listeners) queueMicrotask(() => listeners.has(listener) && listener(state));
    },
  });

  /** The current token, or another one than that which was refused. */
  const token = (refused?: string) =>
    new Promise<Grant>((done, fail) => machine.wait((result) => (result instanceof CounterfoilError ? fail(result) : done(result)), refused));

  /** A call of the user's. Nothing is repeated. */
  async function call(method: string, path: string, body?: object): Promise<unknown> {
    const reads = method === "GET";
    const from = machine.now();
    if (!reads) machine.busy(1);
    try {
      const answer = await request(method, path, reads ? undefined : body ?? {}, slow)[0];
      const grant = grantOf(answer);
      if (grant) machine.adopt(grant, from);
      return answer;
    } catch (error) {
      // The session may have ended; or the answer was lost, and what was asked for has happened.
      const e = error as CounterfoilError;
      if (e.ended || e.code === "credential_missing" || !(reads || e.status)) machine.check();
      throw error;
    } finally {
      if (!reads) machine.busy(-1);
    }
  }

  async function granted(path: string, body: object): Promise<Session> {
    const grant = grantOf(await call("POST", path, body));
    if (!grant) throw unavailable();
    return grant.session;
  }

  const credentials = ({ email, password }: Credentials) => ({ email, password, ...(clientId && { client_id: clientId }) });

  async function signOut(which?: Which, device?: string): Promise<void> {
    const { state, generation } = machine;
    const from = machine.now();
    const sid = "session" in state ? state.session?.sid : undefined;
    const here = device ? device === sid : which !== "others";
    // A portal on the way answers 200 to anything; and that no cookie came does not say that there is none.
    if ((await call("POST", "/sign-out", device ? { sid: device } : { which })) !== undefined) throw unavailable();
    if (!here) return;
    machine.signOut(from, generation);
    p.post({ type: "left", sid: which === "all" ? undefined : sid });
  }

  const look = () => watch?.(open && machine.state.status === "signed-in" && p.visible());
  const deaf = p.listen({
    wake(wake) {
      machine.wake(wake);
      look();
    },
    hidden: () => watch?.(false),
    touch: () => machine.touch(),
    signal: (signal) => machine.signal(signal),
  });
  machine.step();
  if (options.watch) {
    // Loaded by those who use it. Without it, an end is noticed by the next refresh.
    const hint = () => {
      machine.check();
      p.post({ type: "check" });
    };
    import("./watch.js").then(
      ({ createWatch }) => {
        watch = createWatch(p, authority + "/session/watch", hint);
        look();
      },
      () => {},
    );
  }

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
    getToken: async () => (await token()).token,
    fetch: createFetch(
      p,
      options,
      (refused) =>
        token(refused).catch((error: unknown) => {
          if (machine.over()) return undefined;
          throw error;
        }),
      () => machine.count,
    ),
    signIn: (given) => granted("/sign-in", credentials(given)),
    signUp: (given) => granted("/sign-up", credentials(given)),
    signOut: (which = "this") => signOut(which),
    stepUp: (proof) => granted("/step-up", proof),
    devices: {
      async list() {
        const all: Session[] = [];
        for (let next = ""; ; ) {
          const page = named(await call("GET", "/sessions" + next)) as { sessions?: Session[]; next?: string };
          if (!page.sessions) throw unavailable();
          all.push(...page.sessions);
          if (!page.next) return all;
          next = "?after=" + encodeURIComponent(page.next);
        }
      },
      end: (sid) => signOut(undefined, sid),
      endOthers: () => signOut("others"),
    },
    call,
    close() {
      open = false;
      deaf();
      listeners.clear();
      look();
      machine.close();
    },
  };
}
