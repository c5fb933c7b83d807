// One client of the fuzz: what a user, an operator and bad luck do to a browser, and what must hold whatever they do.
import assert from "node:assert/strict";
import { World, Tab, generator } from "./world.mjs";

const minute = 60_000;
const wait = 15_000; // of getToken
const notice = 60_000; // a visible tab hears of a true end within
const quiet = 8.5 * minute; // after the last fault everything is well again within

/** Counts of one run, so that a run that tests nothing is seen. */
export const tally = () => ({ clients: 0, tabs: 0, refreshes: 0, tokens: 0, calls: 0, ends: 0, noticed: 0, stale: 0, late: 0, unsignalled: 0, states: {} });

/** `modules` has createCore. `next` does one event of the client's life; it throws when something did not hold. */
export class Client {
  waiting = new Set();
  broken = undefined;

  constructor(seed, modules, counts) {
    this.seed = seed;
    this.modules = modules;
    this.counts = counts;
    const random = (this.random = generator(seed));
    const world = (this.world = new World(random));
    counts.clients++;
    // One in four has no trouble but its own users': there bounds are held to the second.
    this.calm = random.chance(0.25);
    world.channels = random.chance(0.8);
    world.stops = random.chance(0.4);
    if (random.chance(0.3)) world.wallAhead = random.pick([-1, 1]) * random.between(0, 60) * minute;
    // A clock that stands still while another is set back leaves nothing to tell the time by.
    this.setsClock = random.chance(0.3);
    this.life = random.between(4, 16) * minute;
    if (random.chance(0.7)) world.jar = world.start("ada").secret; // from an earlier visit
    const tabs = 1 + Math.floor(random.next() * (random.chance(0.2) ? 10 : 4));
    for (let i = 0; i < tabs; i++) this.open();
    this.end = world.now + this.life;
    this.latest = this.end + 20 * minute; // of sleep
    this.act();
  }

  open() {
    const { world } = this;
    const tab = new Tab(world, this.modules.createCore);
    this.counts.tabs++;
    tab.session.onChange((state) => this.guard(() => this.changed(tab, state)));
    if (this.random.chance(0.3)) tab.show(false);
  }

  /** Keeps the first thing that did not hold: a listener's throw would go elsewhere. */
  guard(check) {
    try {
      check();
    } catch (error) {
      this.broken ??= error;
    }
  }

  /** No false sign-out: what is said to have ended has ended, and nothing newer is in the jar. */
  changed(tab, state) {
    const { world, counts } = this;
    counts.states[state.status] = (counts.states[state.status] ?? 0) + 1;
    const before = tab.sid;
    tab.sid = state.session?.sid;
    if (state.status === "signed-in" || state.status === "refreshing-later") return;
    if (before !== undefined) counts.late++;
    const session = world.bySid.get(before);
    // Its new cookie, of a step-up, is on the way into the jar.
    const landing = session && !session.end && !session.unreachable && session.landing > world.now;
    if (state.status === "ended") {
      assert(/^session_(revoked|expired|unknown)$/.test(state.code));
      // True when it was asked: without a signal, nobody can know of a sign-in since.
      assert(!world.current || world.jarAt >= tab.askedAt, `ended (${state.code}) while the cookie names a live session`);
      // Without signals a tab cannot know of it, and waits for as long as most cookies take.
      if (landing && !world.channels) counts.unsignalled++;
      else assert(!landing, `ended (${state.code}) while the new cookie of ${before} is on its way`);
    } else {
      // True when it was asked; whoever signed in since sends a signal, or the page finds out when it is looked at.
      // One that knew of no session, or heard late of a sign-out, cannot tell an empty jar from cookies that were kept back.
      const told = before === undefined || world.signals.some(({ type }) => type === "left");
      assert(!world.current || world.jarAt >= tab.askedAt || (told && tab.bare), "signed-out while the cookie names a live session");
    }
  }

  /** What the user, the operator and the world do next. */
  act() {
    const { world, random } = this;
    if (world.now >= this.end) return this.recover();
    world.after(random.between(100, 20_000), () => this.act());
    if (world.asleep) return; // nobody opens a tab on a machine that sleeps
    const tab = random.pick(world.tabs);
    if (!tab) return this.open();
    const x = random.next();
    if (x < 0.3) this.ask(tab);
    else if (x < 0.5) this.request(tab);
    else if (x < 0.53) world.tabs.length < 10 && this.open();
    else if (x < 0.56) world.tabs.length > 1 && this.close(tab);
    else if (x < 0.66) tab.show(!tab.visible);
    else if (x < 0.7) tab.to?.touch();
    else if (x < 0.73) this.user(tab, () => tab.session.stepUp({ password: "right" }));
    else if (x < 0.76) world.current && world.bump(world.current.subject);
    else if (x < 0.79) this.revoke();
    else if (x < 0.81) this.user(tab, () => tab.session.signOut(random.pick(["this", "all"])));
    else if (x < 0.86) this.signIn(tab);
    else if (!this.calm) this.trouble(tab);
  }

  close(tab) {
    tab.close();
    for (const asked of this.waiting) if (asked.tab === tab) this.waiting.delete(asked);
  }

  signIn(tab) {
    const { random, world } = this;
    const email = random.pick(["ada", "ada", "bob"]);
    if (world.current && random.chance(0.7)) return;
    this.user(tab, () => tab.session.signIn({ email, password: random.chance(0.9) ? "right" : "wrong" }));
  }

  /** A call of the user's: it may fail, but only with a typed error. */
  user(tab, call) {
    if (tab.frozen || this.world.asleep) return;
    call().catch((error) => this.guard(() => assert.equal(error.name, "CounterfoilError", error.stack)));
  }

  revoke() {
    const { world, random, counts } = this;
    const session = world.current;
    if (!session || random.chance(0.2)) return;
    world.end(session, random.pick(["session_revoked", "session_expired"]), random.pick(["revoked", "password_changed"]));
    counts.ends++;
    const visible = new Map();
    for (const tab of world.tabs) if (tab.visible && !tab.frozen && tab.sid === session.sid) visible.set(tab, true);
    if (!this.calm) return;
    world.after(notice, () => {
      for (const tab of visible.keys()) {
        if (tab.closed) continue;
        counts.noticed++;
        assert(tab.sid !== session.sid || tab.state.status !== "signed-in" || !tab.visible, `a minute after the end of ${session.sid} a tab still believes in it`);
      }
    });
  }

  /** getToken: over in time, and never with a token that is dead. */
  ask(tab) {
    const { world, counts } = this;
    if (tab.frozen || world.asleep) return;
    const asked = { tab, at: world.now };
    const { subject } = tab.state.session ?? {};
    this.waiting.add(asked);
    const over = (check) => {
      this.waiting.delete(asked);
      this.guard(() => {
        const took = world.now - asked.at - this.pauses(tab, asked);
        assert(took <= wait + 1, `getToken took ${took} ms`);
        check();
      });
    };
    tab.session.getToken().then(
      (token) =>
        over(() => {
          counts.tokens++;
          const whose = world.tokens.get(token).session.subject;
          assert.equal(whose, subject ?? whose, "a token of another user than the one who was signed in");
          if (!(world.stops && this.setsClock)) assert(world.tokens.get(token).exp >= world.now - 100, "getToken gave a token that has expired");
        }),
      (error) => over(() => assert.equal(error.name, "CounterfoilError", error.stack)),
    );
  }

  /** How long the tab did not run since then, sleep and freezing included. */
  pauses(tab, asked) {
    const { world } = this;
    if (tab.frozen) return Infinity; // it is closed as it stands
    return (tab.pausedUntil ?? 0) > asked.at ? Infinity : world.sleptAt > asked.at ? Infinity : 0;
  }

  /** A request to the API: role changes are not noticed. */
  request(tab) {
    const { world, counts } = this;
    if (tab.frozen || world.asleep) return;
    const session = world.current;
    if (session && this.random.chance(0.3)) {
      world.bump(session.subject);
      counts.stale++;
    }
    const epoch = () => world.epochs.get(session?.subject);
    const rights = epoch();
    const same = tab.sid !== undefined && tab.sid === session?.sid && tab.state.status === "signed-in";
    const { subject } = tab.state.session ?? {};
    tab.session.fetch("/api/hello").then(
      (response) => {
        counts.calls++;
        const { hello } = response.raw.startsWith("{") ? JSON.parse(response.raw) : {};
        this.guard(() => assert.equal(hello ?? subject, subject ?? hello, "what one user asked for was done as another"));
        // A refusal may only stand if the session has changed, or rights did twice meanwhile.
        if (this.calm && same && world.current === session && epoch() === rights && !tab.closed) this.guard(() => assert.equal(response.status, 200));
      },
      (error) => this.guard(() => assert(error.name === "CounterfoilError" || error.name === "TypeError", error.stack)),
    );
  }

  trouble(tab) {
    const { world, random } = this;
    world.faultAt = world.now;
    const x = random.next();
    const later = (low, high, call) => world.after(random.between(low, high), call);
    if (x < 0.15) {
      world.offline = true;
      later(1000, 5 * minute, () => {
        world.offline = false;
        for (const t of world.tabs) if (random.chance(0.8)) t.wake("online");
      });
    } else if (x < 0.3) {
      const ms = random.pick([random.between(1000, minute), random.between(minute, 90 * minute)]);
      world.sleep(ms);
      world.sleptAt = world.asleepUntil + 1000;
      this.end = Math.min(this.end + ms, this.latest);
      for (const t of world.tabs) if (random.chance(0.5)) later(ms, ms + 100, () => t.visible && t.wake("visible"));
    } else if (x < 0.42) {
      tab.freeze();
      later(1000, 20 * minute, () => tab.thaw());
    } else if (x < 0.5) {
      if (this.setsClock) world.wallAhead = random.pick([0, 1, -1]) * random.between(0, 60) * minute;
    } else if (x < 0.55) {
      tab.wake("back");
    } else if (x < 0.6) {
      world.jar = undefined; // the user cleared the cookies
    } else if (x < 0.65) {
      // Another window, without our code, signs in.
      const old = world.current;
      if (old) world.end(old, "session_revoked", "replaced");
      world.jar = world.start(random.pick(["ada", "bob"])).secret;
      world.jarAt = world.now;
    } else {
      world.weather = random.pick([
        {},
        { lostAnswer: 0.3 },
        { lostRequest: 0.3, lostAnswer: 0.1 },
        { slow: 0.6 },
        { slow: 0.3, lostAnswer: 0.2 },
        { hang: 0.3 },
        { captive: 0.9 },
        { captive: 0.4, lostAnswer: 0.2 },
        { limited: 0.5 },
        { broken: 0.6 },
        { broken: 1 },
        { proof: 0.5 },
        { bare: 0.4 },
        { bare: 1 },
      ]);
      if (random.chance(0.7)) later(5000, 3 * minute, () => (world.weather = {}));
    }
  }

  /** The faults are over: everything becomes what it is. */
  recover() {
    const { world, random } = this;
    world.weather = {};
    world.offline = false;
    if (world.asleep) return void world.at(world.asleepUntil + 1, () => this.recover());
    for (const tab of world.tabs) {
      tab.thaw();
      tab.show(true);
      tab.wake("online");
    }
    // What was still on its way has landed by then; where there are no signals, a look at the tab finds it.
    world.after(minute, () => world.tabs.forEach((tab) => tab.wake("focus")));
    this.over = world.now + quiet + random.between(0, 1000);
  }

  /** One event; false when the life is over and was right. */
  next() {
    const { world } = this;
    if (this.broken ?? this.world.broken) throw this.broken ?? this.world.broken;
    if (world.step(this.over)) return true;
    this.judge();
    for (const tab of [...world.tabs]) tab.close();
    this.counts.refreshes += world.sent.length;
    return false;
  }

  judge() {
    const { world } = this;
    const current = world.current;
    for (const asked of this.waiting) assert.fail(`getToken of ${world.now - asked.at} ms ago has not settled`);
    for (const tab of world.tabs) {
      const { state } = tab;
      if (current) {
        assert.equal(state.status, "signed-in", `at the end ${state.status} ${state.code ?? ""} with a live session`);
        assert.equal(state.session.sid, current.sid);
      } else if (world.jar) {
        assert.equal(state.status, "ended", `at the end ${state.status} ${state.code ?? ""} with the cookie of a dead session`);
      } else {
        assert(state.status !== "signed-in" && state.status !== "starting" && (state.status !== "refreshing-later" || state.code === "credential_missing"), `at the end ${state.status} ${state.code ?? ""} without a cookie`);
      }
    }
    // Never faster than the budget.
    const by = new Map();
    for (const { tab, at } of world.sent) {
      const times = by.get(tab) ?? by.set(tab, []).get(tab);
      times.push(at);
      if (!this.setsClock && times.length > 23) assert(at - times.at(-24) > 60_000, "more refreshes in a minute than the budget has");
    }
  }
}
