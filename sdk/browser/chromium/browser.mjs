// One Chromium for all cases; each case has a site, with an authority of its own, and profiles of its own.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const need = createRequire(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const { chromium } = need("playwright-core");
const [control, key] = process.argv.slice(2);
const patience = 60_000; // for what is true in a moment on a machine that has nothing else to do

export const password = "paper boats on a green river";
export const jwt = /eyJ[\w-]+\.[\w-]+\.[\w-]+/g;

export function launch() {
  return chromium.launch({
    executablePath: process.env.COUNTERFOIL_TEST_CHROMIUM,
    // Playwright switches it off; users have it on.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--host-resolver-rules=MAP *.shop.test 127.0.0.1", `--ignore-certificate-errors-spki-list=${key}`,
    ],
  });
}

async function post(url, body) {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: ${text}`);
  return JSON.parse(text);
}

/** Waits until `check` gives something; what it throws counts as not yet. */
export async function until(what, check, ms = patience) {
  const end = Date.now() + ms;
  for (let last; ; ) {
    try {
      const result = await check();
      if (result) return result;
      last = result;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${ms / 1000} s: ${what} (${last instanceof Error ? last.message : JSON.stringify(last)})`);
    await new Promise((go) => setTimeout(go, 10)); // between two looks
  }
}

/** A server with its authority. */
export class Site {
  static async open(browser, options = {}) {
    return Object.assign(new Site(), await post(`${control}/sites`, options), { browser, profiles: [] });
  }

  #command(what, body = {}) {
    return post(`${control}/sites/${this.id}/${what}`, body);
  }

  /** Moves the authority's clock. */
  forward(seconds) {
    return this.#command("forward", seconds);
  }

  /** Replaces the faults; see fault in browser_chromium_test.go. */
  faults(...rules) {
    return this.#command("faults", rules);
  }

  /** Delivers the answers that are held. */
  release() {
    return this.#command("release");
  }

  /** Waits until so many answers are held. */
  held(number = 1) {
    return until(`${number} held answers`, async () => (await this.#command("log")).held >= number);
  }

  /** The requests so far whose path begins so. */
  async log(path = "/") {
    return (await this.#command("log")).log.filter((event) => event.path.startsWith(path) && event.method !== "OPTIONS");
  }

  async count(path = "/auth/refresh") {
    return (await this.log(path)).length;
  }

  /** A call of the application's backend. */
  async backend(method, path, body) {
    const response = await fetch(this.plain + "/v1" + path, {
      method,
      headers: { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" },
      ...(body && { body: JSON.stringify(body) }),
    });
    assert.ok(response.ok, `${method} ${path}: ${response.status}`);
    return response.status === 204 ? undefined : response.json();
  }

  /** Another device of the user: a native one, without a browser. */
  async device(email) {
    const call = async (path, body, token) => {
      const response = await fetch(this.plain + "/auth" + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) },
        body: JSON.stringify(body),
      });
      assert.ok(response.ok, `${path} of another device: ${response.status}`);
      return response.status === 204 ? undefined : response.json();
    };
    const grant = await call("/sign-in", { email, password, transport: "body" });
    return { signOut: (body) => call("/sign-out", body, grant.session_token), sid: grant.session.sid };
  }

  /**
   * A profile; `clock` gives its pages a clock that the case moves, with what they are wrong by in seconds; `without` names
   * what the browser does not have.
   */
  async profile({ clock, without = [] } = {}) {
    const context = await this.browser.newContext();
    context.setDefaultTimeout(patience);
    const profile = new Profile(this, context);
    this.profiles.push(profile);
    await context.addInitScript(spy);
    await context.addInitScript(lack, without);
    if (clock !== undefined) await context.clock.install({ time: Date.now() + clock * 1000 });
    context.on("response", (response) => profile.heard(response));
    context.on("weberror", (error) => profile.faults.push(`script: ${error.error().message}`));
    context.on("console", (m) => {
      if (["error", "warning"].includes(m.type()) && !expected.test(m.text())) profile.faults.push(`console: ${m.text()}`);
    });
    return profile;
  }

  /** A tab of a new profile in which a new user has just signed up. */
  async signedIn(email = "ada@example.com", options = {}) {
    const profile = await this.profile(options);
    const tab = await profile.tab(options);
    await tab.shows(/^nobody/);
    await tab.signUp(email);
    await tab.page.evaluate(() => states.splice(0, states.length - 1)); // what was before is not part of the case
    return tab;
  }

  /** Nothing unexpected may have happened, and no token may lie anywhere. */
  async check() {
    for (const profile of this.profiles) {
      await profile.keepsTokens();
      assert.deepEqual(profile.faults, []);
    }
  }

  async close() {
    await this.release();
    for (const { context } of this.profiles) await context.close();
  }
}

// Chromium logs each answer that is no success, and each request that failed.
const expected = /^Failed to load resource: /;

/** Runs in each page before its scripts: notes what is said to other tabs, and what the policy of the page forbids. */
function spy() {
  globalThis.signals = [];
  const { postMessage } = BroadcastChannel.prototype;
  BroadcastChannel.prototype.postMessage = function (message) {
    signals.push(JSON.stringify(message));
    return postMessage.call(this, message);
  };
  globalThis.violations = [];
  addEventListener("securitypolicyviolation", (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
}

/** Runs in each page before its scripts. */
function lack(names) {
  for (const name of names) {
    if (name in navigator) Object.defineProperty(navigator, name, { value: undefined });
    else delete globalThis[name];
  }
}

/** A user's browser with its cookies. */
class Profile {
  faults = [];
  tabs = [];
  secrets = new Set(); // each token that an answer brought

  constructor(site, context) {
    this.site = site;
    this.context = context;
  }

  async heard(response) {
    if (!/json/.test(response.headers()["content-type"] ?? "")) return;
    const text = await response.text().catch(() => ""); // of a page that has gone, or cut
    for (const [token] of text.matchAll(jwt)) this.secrets.add(token);
  }

  async tab({ page = "home.html", ...options } = {}) {
    delete options.clock;
    delete options.without;
    const tab = new Tab(this, await this.context.newPage());
    this.tabs.push(tab);
    await tab.open(page, options);
    return tab;
  }

  /** Moves the clock of the pages, as sleep does: what was due meanwhile comes once, afterwards. */
  async forward(seconds) {
    await this.context.clock.fastForward(seconds * 1000);
  }

  /** Moves the clocks of both ends. */
  async pass(seconds) {
    await this.site.forward(seconds);
    await this.forward(seconds);
  }

  /** SEC-104, SEC-105: no token in what scripts can read, and none in what tabs tell each other. */
  async keepsTokens() {
    for (const { page } of this.tabs) {
      if (page.isClosed()) continue;
      const found = await page.evaluate(async () => ({
        local: { ...localStorage },
        session: { ...sessionStorage },
        databases: (await indexedDB.databases()).map(({ name }) => name),
        caches: globalThis.caches ? await caches.keys() : [],
        cookie: document.cookie,
        signals: globalThis.signals ?? [],
        history: [location.href, history.state, name, document.referrer],
        markup: document.documentElement.outerHTML,
        violations: globalThis.violations ?? [],
      }));
      const { signals, history, markup, violations, ...stores } = found;
      assert.deepEqual(stores, { local: {}, session: {}, databases: [], caches: [], cookie: "" });
      assert.deepEqual(violations, [], "the page's policy was violated");
      for (const signal of signals) assert.deepEqual(Object.keys(JSON.parse(signal)).filter((name) => !["type", "sid", "ms"].includes(name)), [], `tabs were told ${signal}`);
      const text = JSON.stringify([signals, history, markup]);
      assert.doesNotMatch(text, jwt, "a token lies about");
      assert.doesNotMatch(text, /cf_st_/, "a session token lies about");
      for (const secret of this.secrets) assert.ok(!text.includes(secret.split(".")[2]), "part of a token lies about");
    }
    for (const cookie of await this.context.cookies()) {
      assert.ok(cookie.httpOnly && cookie.secure && cookie.name.startsWith("__Host-"), `the cookie ${cookie.name} is not protected`);
    }
  }
}

/** A page of the small application in page/. */
class Tab {
  constructor(profile, page) {
    this.profile = profile;
    this.page = page;
  }

  async open(page = "home.html", options = {}) {
    await this.page.goto(`${this.profile.site.url}/page/${page}?options=${encodeURIComponent(JSON.stringify(options))}`);
    await this.page.waitForFunction(() => globalThis.session);
  }

  /** Waits for what the user sees. Returns the text. */
  shows(pattern, ms) {
    return until(
      `the page shows ${pattern}`,
      async () => {
        const text = await this.page.textContent("#who");
        if (!pattern.test(text)) throw new Error(`it shows "${text}"`);
        return text;
      },
      ms,
    );
  }

  who() {
    return this.page.textContent("#who");
  }

  /** The subject, once signed up. */
  async signUp(email) {
    const { subject } = await this.page.evaluate((credentials) => session.signUp(credentials), { email, password });
    this.subject = subject;
    await this.shows(/^signed in/);
    return subject;
  }

  async signIn(email) {
    const { subject } = await this.page.evaluate((credentials) => session.signIn(credentials), { email, password });
    this.subject = subject;
    await this.shows(/^signed in/);
    return subject;
  }

  /** A call of the protected service: status 0 with a code where the SDK threw. */
  call(path = "/api/me", init) {
    return this.page.evaluate(
      async ([path, init]) => {
        try {
          const response = await session.fetch(path, init);
          const text = await response.text();
          return { status: response.status, ...(text.startsWith("{") ? { body: JSON.parse(text) } : {}) };
        } catch (error) {
          return { status: 0, name: error.name, code: error.code, message: error.message };
        }
      },
      [path, init],
    );
  }

  /** The call succeeds, as this subject. */
  async works(subject = this.subject) {
    const { status, body, code } = await this.call();
    assert.deepEqual([status, body?.subject, code], [200, subject, undefined]);
    return body;
  }

  /** The claims of the token at hand, or the code of why there is none. */
  async token() {
    return this.page.evaluate(() =>
      session.getToken().then(
        (token) => JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))),
        (error) => ({ code: error.code ?? error.name, reason: error.reason }),
      ),
    );
  }

  /** What onChange has told so far: the statuses, in order. */
  statuses() {
    return this.page.evaluate(() => states.map(({ status }) => status));
  }

  states() {
    return this.page.evaluate(() => states);
  }

  state() {
    return this.page.evaluate(() => session.state);
  }

  /** What the user does that counts as activity. */
  async press() {
    await this.page.bringToFront();
    await this.page.keyboard.press("a");
  }
}
