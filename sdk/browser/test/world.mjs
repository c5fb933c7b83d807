// One browser with its tabs, clocks and cookie jar, an authority and an API, on simulated time. All that happens comes out
// of one queue and one seeded generator of random numbers, so that a run can be had again.
import assert from "node:assert/strict";

/** Numbers of mulberry32: small, and the same everywhere. */
export function generator(seed) {
  let a = seed >>> 0;
  const next = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    next,
    chance: (p) => next() < p,
    between: (low, high) => low + next() * (high - low),
    pick: (list) => list[Math.floor(next() * list.length)],
  };
}

const leeway = 5000;
export const life = 60_000;

/** As much of a Response as anybody here looks at. */
class Answer {
  constructor(status, text = "", headers = {}) {
    this.status = status;
    this.ok = status >= 200 && status < 300;
    this.headers = new Headers(headers);
    this.body = { cancel: async () => {} };
    this.raw = text;
  }
  async text() {
    return this.raw;
  }
  async json() {
    return JSON.parse(this.raw);
  }
  clone() {
    return this;
  }
}

export const json = (status, value, headers = {}) => new Answer(status, JSON.stringify(value), { "content-type": "application/json", ...headers });
export const problem = (code, status = 401, more = {}, headers = {}) =>
  new Answer(status, JSON.stringify({ code, status, title: "x", detail: "x", ...more }), { "content-type": "application/problem+json", ...headers });
const html = (status) => new Answer(status, "<html>Welcome to the airport</html>", { "content-type": "text/html" });

export class World {
  now = 1_760_000_000_000; // true time
  queue = [];
  sequence = 0;
  tabs = [];
  faultAt = -Infinity;
  // The browser.
  jar = undefined; // the session cookie
  jarAt = -Infinity; // when it changed
  wallAhead = 0;
  monoLost = 0;
  stops = false; // whether the monotonic clock stops while asleep
  asleepUntil = 0;
  offline = false;
  channels = true;
  // The authority.
  sessions = new Map(); // by secret; several secrets of one session over time
  bySid = new Map();
  epochs = new Map();
  tokens = new Map();
  weather = {}; // what the network does to requests
  counter = 0;
  sent = []; // refreshes: {tab, at}
  signals = [];

  constructor(random) {
    this.random = random;
  }

  at(time, call) {
    const event = { time: Math.max(time, this.now), sequence: this.sequence++, call };
    const q = this.queue;
    let i = q.push(event) - 1;
    for (; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (before(q[parent], event)) break;
      q[i] = q[parent];
      i = parent;
    }
    q[i] = event;
    return event;
  }

  after(ms, call) {
    return this.at(this.now + ms, call);
  }

  /** Does what is next; false if nothing is left before the time. */
  step(until = Infinity) {
    const q = this.queue;
    if (q.length === 0 || q[0].time > until) {
      if (until < Infinity) this.now = Math.max(this.now, until);
      return false;
    }
    const first = q[0];
    const last = q.pop();
    if (q.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= q.length) break;
        if (child + 1 < q.length && before(q[child + 1], q[child])) child++;
        if (before(last, q[child])) break;
        q[i] = q[child];
        i = child;
      }
      q[i] = last;
    }
    this.now = Math.max(this.now, first.time);
    first.call?.();
    return true;
  }

  /** Lets time pass. */
  async run(ms) {
    const until = this.now + ms;
    await settle();
    while (this.step(until)) await settle();
  }

  // --- the authority ---

  start(subject) {
    const sid = `sid${++this.counter}`;
    const session = { sid, subject, secret: `sec-${sid}-1`, end: undefined, authTime: this.now / 1000, unreachable: false };
    this.sessions.set(session.secret, session);
    this.bySid.set(sid, session);
    return session;
  }

  end(session, code, reason) {
    session.end ??= { code, reason, at: this.now };
  }

  alive(secret) {
    const session = this.sessions.get(secret);
    return session !== undefined && session.end === undefined && session.secret === secret;
  }

  /** The session that the browser's cookie names, if it lives. */
  get current() {
    return this.alive(this.jar) ? this.sessions.get(this.jar) : undefined;
  }

  bump(subject) {
    this.epochs.set(subject, (this.epochs.get(subject) ?? 0) + 1);
  }

  grant(session) {
    const token = `tok-${session.sid}-${++this.counter}`;
    const lasts = Math.round(this.random.between(0.9, 1) * life);
    this.tokens.set(token, { session, exp: this.now + lasts, epoch: this.epochs.get(session.subject) ?? 0 });
    const shown = { sid: session.sid, subject: session.subject, client_id: "default", status: "active", auth_time: session.authTime, device: { user_agent: "x", ip: "y" } };
    return { access_token: token, token_type: "Bearer", expires_in: Math.floor(lasts / 1000), refresh_after: Math.floor((lasts / 1000) * this.random.between(0.6, 0.8)), server_time: Math.floor(this.now / 1000), session: shown };
  }

  /** Answers a device call: {answer, cookie?}; cookie null clears. */
  serve(path, cookie, body) {
    if (path === "/sign-in") {
      if (body.password !== "right") return { answer: problem("invalid_credentials") };
      if (this.alive(cookie)) this.end(this.sessions.get(cookie), "session_revoked", "replaced");
      const session = this.start(body.email);
      return { answer: json(200, this.grant(session)), cookie: session.secret };
    }
    if (!cookie) return { answer: problem("credential_missing") };
    const session = this.sessions.get(cookie);
    const refused =
      session === undefined || session.secret !== cookie
        ? problem("session_unknown")
        : session.end && problem(session.end.code, 401, { sid: session.sid, reason: session.end.reason, ended_at: Math.floor(session.end.at / 1000) });
    if (path === "/sign-out") {
      if (body.which === "others") return { answer: refused || new Answer(204) };
      if (!refused) this.end(session, "session_revoked", "signed_out");
      return { answer: new Answer(204), cookie: null };
    }
    if (refused) return { answer: refused };
    if (path === "/step-up") {
      session.secret = `sec-${session.sid}-${++this.counter}`;
      session.authTime = this.now / 1000;
      this.sessions.set(session.secret, session);
      return { answer: json(200, this.grant(session)), cookie: session.secret };
    }
    return { answer: json(200, this.grant(session)) };
  }

  /** The API: what a verifier that follows the feed says. */
  api(headers) {
    const bearer = /^Bearer (.+)$/.exec(headers.get("Authorization") ?? "")?.[1];
    const token = this.tokens.get(bearer);
    if (!bearer) return problem("credential_missing");
    if (!token) return problem("token_invalid");
    if (this.now > token.exp + leeway) return problem("token_expired");
    if (token.session.end) return problem("token_revoked");
    if (token.epoch < (this.epochs.get(token.session.subject) ?? 0)) return problem("token_stale");
    return json(200, { hello: token.session.subject });
  }

  // --- the browser ---

  get asleep() {
    return this.now < this.asleepUntil;
  }

  mono() {
    return this.now - this.monoLost + 12345;
  }

  wall() {
    return this.now + this.wallAhead;
  }

  sleep(ms) {
    if (this.asleep) return;
    this.asleepUntil = this.now + ms;
    if (this.stops) {
      this.at(this.asleepUntil, () => (this.monoLost += ms));
      for (const tab of this.tabs) tab.timerShift(ms);
    }
  }

  /** Calls in the tab, as soon as it runs. */
  deliver(tab, call) {
    if (tab.closed) return;
    if (this.asleep) this.at(this.asleepUntil + this.random.between(0, 500), () => this.deliver(tab, call));
    else if (tab.frozen) tab.held.push(call);
    else call();
  }

  /** One request of a tab, through the weather. */
  request(tab, input, init = {}) {
    const url = new URL(typeof input === "string" ? input : input.url);
    const refresh = url.pathname === "/auth/refresh";
    if (refresh) {
      this.sent.push({ tab, at: this.now });
      tab.askedAt = this.now;
      // Not thrown: to the SDK that would be a request that failed.
      if (tab.refreshing) this.broken ??= new Error("two refreshes of one tab at once");
      tab.refreshing = true;
    }
    const w = this.weather;
    const random = this.random;
    const bare = random.chance(w.bare ?? 0); // something keeps the cookies back
    const cookie = bare ? undefined : this.jar;
    tab.bare ||= bare;
    const body = init.body ? JSON.parse(init.body) : {};
    return new Promise((done, fail) => {
      let over = false;
      const finish = (call) => {
        if (over) return;
        over = true;
        if (refresh) tab.refreshing = false;
        call();
      };
      let renewed; // the session whose new cookie is on its way
      init.signal?.addEventListener("abort", () => {
        if (renewed && !over) renewed.unreachable = true; // what was given up sets no cookie
        finish(() => fail(new DOMException("aborted", "AbortError")));
      });
      const lose = () => this.after(random.between(0, 3000), () => this.deliver(tab, () => finish(() => fail(new TypeError("Failed to fetch")))));
      if (this.offline) return lose();
      if (random.chance(w.hang ?? 0)) return;
      if (random.chance(w.lostRequest ?? 0)) return lose();
      const up = random.between(5, 60) + (random.chance(w.slow ?? 0) ? random.between(0, 20_000) : 0);
      const down = random.between(5, 60) + (random.chance(w.slow ?? 0) ? random.between(0, 20_000) : 0);
      const lostAnswer = random.chance(w.lostAnswer ?? 0);
      const rotates = url.pathname === "/auth/step-up";
      this.after(up, () => {
        if (over && random.chance(0.5)) return; // aborted before it came
        let result;
        if (random.chance(w.captive ?? 0)) result = { answer: random.pick([html(200), html(401), html(511), json(200, { ok: true }), json(401, { error: "portal" }), json(403, { code: "session_revoked" }), undefined]) };
        else if (random.chance(w.limited ?? 0)) result = { answer: problem("rate_limited", 429, {}, { "Retry-After": random.pick(["1", "7", "30", "1000000", "soon"]) }) };
        else if (random.chance(w.broken ?? 0)) result = { answer: random.pick([problem("unavailable", 503, {}, { "Retry-After": "1" }), html(502), new Answer(500), problem("internal", 500)]) };
        else if (random.chance(w.proof ?? 0)) result = { answer: problem("proof_required") };
        else if (url.pathname.startsWith("/auth/")) result = this.serve(url.pathname.slice(5), cookie, body);
        else result = { answer: this.api(new Headers(init.headers)) };
        const session = rotates && result.cookie && this.sessions.get(result.cookie);
        if (session) session.landing = this.now + down;
        renewed = session;
        if (session && over) session.unreachable = true;
        if (!result.answer || lostAnswer || this.asleep) {
          if (session) session.unreachable = true;
          return lose();
        }
        this.after(down, () => {
          if (over || (this.asleep && random.chance(0.5))) {
            if (session) session.unreachable = true;
            if (!over) lose();
            return;
          }
          if (result.cookie !== undefined) {
            this.jar = result.cookie ?? undefined;
            this.jarAt = this.now;
          }
          this.deliver(tab, () => finish(() => done(result.answer)));
        });
      });
    });
  }
}

function before(a, b) {
  return a.time < b.time || (a.time === b.time && a.sequence < b.sequence);
}

/** Lets everything happen that is due without time passing. */
export function settle() {
  return new Promise((go) => setImmediate(go));
}

/** One tab. `platform` is what createCore takes. */
export class Tab {
  base = "https://app.example/start";
  frozen = false;
  closed = false;
  visible = true;
  refreshing = false;
  held = [];
  timers = new Set();
  states = [];

  constructor(world, createCore, options = {}) {
    this.world = world;
    world.tabs.push(this);
    const tab = this;
    this.platform = {
      base: "https://app.example/start",
      baseURI: () => tab.base,
      fetch: (input, init) => world.request(tab, input, init),
      mono: () => world.mono(),
      wall: () => world.wall(),
      random: () => world.random.next(),
      visible: () => tab.visible,
      timer(ms, call) {
        assert(ms >= 0 && ms < 2 ** 31, `a timer of ${ms} ms`);
        const timer = { due: world.now + ms, call };
        tab.timers.add(timer);
        tab.arm(timer);
        return () => tab.timers.delete(timer);
      },
      post(signal) {
        const text = JSON.stringify(signal);
        assert(!/tok-|sec-/.test(text), `a secret travels between tabs: ${text}`);
        world.signals.push(signal);
        if (!world.channels) return;
        for (const other of world.tabs) {
          if (other !== tab && !other.closed) world.after(world.random.between(0, 5), () => world.deliver(other, () => other.to?.signal(JSON.parse(text))));
        }
      },
      listen(to) {
        tab.to = to;
        return () => (tab.to = undefined);
      },
    };
    this.session = createCore(this.platform, options);
    this.session.onChange((state) => this.states.push(state));
  }

  arm(timer) {
    const { world } = this;
    world.at(timer.due, () => {
      if (!this.timers.has(timer)) return;
      if (timer.due > world.now) return this.arm(timer); // shifted by a sleep
      world.deliver(this, () => this.timers.delete(timer) && timer.call());
    });
  }

  timerShift(ms) {
    for (const timer of this.timers) timer.due += ms;
  }

  get state() {
    return this.session.state;
  }

  wake(wake) {
    this.world.deliver(this, () => this.to?.wake(wake));
  }

  show(visible) {
    if (this.visible === visible) return;
    this.visible = visible;
    if (visible) {
      this.thaw();
      this.wake("visible");
    } else this.to?.hidden();
  }

  freeze() {
    this.show(false);
    this.frozen = true;
  }

  thaw() {
    if (!this.frozen) return;
    this.frozen = false;
    this.pausedUntil = this.world.now + 1;
    // What was due meanwhile comes in no order that could be relied upon.
    const held = this.held.splice(0).map((call) => [this.world.random.next(), call]);
    held.sort((a, b) => a[0] - b[0]);
    for (const [, call] of held) this.world.deliver(this, call);
    this.wake("resume");
  }

  close() {
    this.closed = true;
    this.session.close();
    this.world.tabs.splice(this.world.tabs.indexOf(this), 1);
  }
}
