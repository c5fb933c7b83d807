// One device of the user: it holds an access token in memory, and keeps it
// fresh for as long as the session goes on.
//
//   out     nobody is signed in
//   in      signed in, the token is refreshed in time
//   later   signed in, but the authority does not answer: tried again
//   ended   the authority said that the session has ended, and why

import { call } from "./call.js";
import { clock } from "./words.js";

const terminal = new Set(["session_revoked", "session_expired", "session_unknown"]);
const longestWait = 5000; // between attempts while the authority does not answer

export class Device extends EventTarget {
  #token = "";
  #flight = null;
  #timer = 0;
  #failures = 0;
  #active = true;
  #watching = null;
  #end = null;    // how the service ended the watch

  state = "out";
  session = null; // as the authority told it last
  claims = null;  // of the access token
  head = null;    // its header
  size = 0;       // its characters
  life = null;    // {from, due, until} on the clock of performance.now()
  problem = null; // why it ended
  stale = false;  // rights have changed since the token was minted
  changedAt = 0;  // when the authority was told of a change, Unix microseconds
  heard = null;   // {code, ms}: the service has heard of the change, so long after

  // base is where this device's session is asked about.
  constructor(name, base, log) {
    super();
    Object.assign(this, { name, base, log });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.live && performance.now() >= this.life.due) this.refresh("the page is visible again");
    });
    addEventListener("online", () => this.state === "later" && this.refresh("back online"));
    for (const sign of ["pointerdown", "keydown"]) addEventListener(sign, () => { this.#active = true; });
  }

  get live() { return this.state === "in" || this.state === "later"; }
  get holdsToken() { return this.#token !== ""; }
  get secondsLeft() { return this.life ? (this.life.until - performance.now()) / 1000 : 0; }

  // start takes what a sign-in answered.
  start(answer) {
    this.#accept(answer);
    this.#change("in");
  }

  // refresh trades the session for a fresh access token. Whoever asks
  // meanwhile shares the answer. True: there is a fresh token.
  refresh(why) {
    this.#flight ??= this.#refresh(why).finally(() => { this.#flight = null; });
    return this.#flight;
  }

  async #refresh(why) {
    const ask = () => call("POST", `${this.base}/refresh`, { body: { active: this.#active } });
    let answer = await ask();
    // Another tab may have signed in meanwhile: ask once more, with the
    // cookies as they are now.
    if (terminal.has(answer.code)) answer = await ask();
    const silent = this.state === "out" && answer.code === "credential_missing";
    if (!silent) this.log.authority(this.name, answer, why);
    if (answer.ok) {
      this.#active = false;
      this.#accept(answer);
      this.#change("in");
    } else if (terminal.has(answer.code)) {
      if (this.session) this.end(answer.body);
      else this.forget(answer.body);
    } else if (answer.code === "credential_missing") {
      this.forget(this.live ? answer.body : null);
    } else if (this.state !== "out") {
      this.#later(answer.retryAfter);
    }
    return answer.ok;
  }

  // send calls the protected service. A token that no longer serves is
  // refreshed once and the call repeated, which the user does not notice.
  // It returns the answer and its line of the log in short.
  async send(method, path) {
    let answer = await call(method, path, { token: this.#token });
    const again = answer.status === 401 && answer.code.startsWith("token_") && this.live;
    let line = this.log.service(this, answer);
    if (again && await this.refresh("the service asked for it")) {
      answer = await call(method, path, { token: this.#token });
      line = this.log.service(this, answer);
    }
    return { answer, line };
  }

  async signOut(which) {
    const answer = await call("POST", `${this.base}/sign-out`, { body: { which } });
    this.log.authority(this.name, answer, { this: "this device", others: "all others", all: "everywhere" }[which]);
    if (answer.ok) this.changed(answer.beganAt);
    if (answer.ok && which !== "others") {
      this.end({ code: "session_revoked", reason: "signed_out", ended_at: clock.now() / 1000 });
    } else if (answer.ok) {
      this.rightsChanged();
    } else if (terminal.has(answer.code)) {
      this.end(answer.body);
    }
    return answer.ok;
  }

  // changed notes when the authority was told of a change that this token does
  // not survive.
  changed(at) {
    if (!this.claims || this.state === "out") return;
    this.changedAt ||= at;
    this.#reckon();
  }

  // #watch opens a stream at the service, which ends it when it refuses the
  // token from now on: what this page has of the service's feed.
  async #watch() {
    this.#watching?.abort();
    const mine = this.#watching = new AbortController();
    Object.assign(this, { heard: null, changedAt: 0 });
    this.#end = null;
    try {
      const response = await fetch("/api/watch", { headers: { Authorization: `Bearer ${this.#token}` }, cache: "no-store", redirect: "error", signal: mine.signal });
      const told = /^data: (.*)$/m.exec(await response.text());
      if (!response.ok || !told || mine.signal.aborted) return;
      this.#end = JSON.parse(told[1]);
    } catch {
      return; // a newer token, or no service: nothing was heard
    }
    this.#reckon();
  }

  // #reckon measures once both sides have told.
  #reckon() {
    if (this.heard || !this.#end || !this.changedAt || this.#end.code === "token_expired") return;
    this.heard = { code: this.#end.code, ms: Math.max(0, this.#end.at - this.changedAt) / 1000 };
    this.log.heard(this);
    this.#change(this.state);
  }

  rightsChanged() {
    if (!this.live) return;
    this.stale = true;
    this.#change(this.state);
  }

  // end keeps the token: the demo shows what it is still good for.
  end(problem) {
    clearTimeout(this.#timer);
    this.problem = problem;
    this.#change("ended");
  }

  // forget makes room for the next sign-in; problem says why there was an end.
  forget(problem = null) {
    clearTimeout(this.#timer);
    this.#watching?.abort();
    this.#token = "";
    Object.assign(this, { session: null, claims: null, life: null, problem, stale: false, heard: null });
    this.#change("out");
  }

  #accept(answer) {
    const { access_token: token, expires_in: lifetime, refresh_after: due, server_time: time, session } = answer.body;
    clock.set(time);
    const [head, claims] = token.split(".", 2).map(readPart);
    Object.assign(this, { session, claims, head, size: token.length, stale: false, problem: null });
    this.#token = token;
    this.#watch();
    this.#failures = 0;
    this.life = { from: answer.began, due: answer.began + due * 1000, until: answer.began + lifetime * 1000 };
    this.#wait(this.life.due - performance.now(), "in time");
  }

  #later(retryAfter) {
    const wait = Math.min(longestWait, Math.max(retryAfter, 2 ** this.#failures) * 1000);
    this.#failures++;
    this.#wait(wait, "trying again");
    this.#change("later");
  }

  #wait(ms, why) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(why), Math.max(0, ms));
  }

  #change(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}

// readPart reads a part of a JWT for showing it. Nothing is decided by it.
function readPart(part) {
  const binary = atob(part.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0))));
}
