// The torn ticket: shows a device's session on the stub and its access token
// on the ticket.

import { deviceName, ending, exact, relative, span, took } from "./words.js";

const leeway = 5; // seconds that verifiers add to the expiry

// status is the session's mark and word.
function status(state, expired) {
  switch (state) {
    case "in": return ["valid", "active"];
    case "later": return ["stale", "active, as last told"];
    case "ended": return ["revoked", expired ? "expired" : "revoked"];
    default: return ["", ""];
  }
}

export class Ticket {
  #device;
  #fields = new Map();
  #torn;
  #root;

  constructor(device, root) {
    this.#device = device;
    this.#root = root;
    this.#torn = root.querySelector(".torn");
    for (const e of root.querySelectorAll("[data-t]")) this.#fields.set(e.dataset.t, e);
    this.#text("name", device.name);
    device.addEventListener("change", () => this.show());
  }

  field(name) { return this.#fields.get(name); }

  // outcome shows what the last call came to, beside the button.
  outcome({ mark, what, told }) {
    const e = this.field("outcome");
    const status = document.createElement("span");
    status.className = "mark";
    status.dataset.mark = mark;
    status.textContent = what;
    const cost = document.createElement("span");
    cost.textContent = told;
    e.replaceChildren(status, cost);
    e.hidden = false;
  }

  // show brings everything up to date; tick only what time changes.
  show() {
    const { state, session, claims, head, size, problem, heard } = this.#device;
    const signedIn = state !== "out" && session !== null;
    this.#hide("stub-body", !signedIn);
    this.#hide("ticket-body", !claims || state === "out");
    if (state === "out") this.#hide("outcome", true);
    this.#hide("token-none", claims !== null && state !== "out");
    this.#torn.toggleAttribute("data-cut", state === "ended");
    this.#row("idle").hidden = this.#row("absolute").hidden = state === "ended";
    this.#row("ended").hidden = state !== "ended";
    const expired = problem?.code === "session_expired";
    this.#text("stamp", expired ? "expired" : "revoked");
    this.#hide("stamp", state !== "ended");
    this.#mark("session-mark", ...status(state, expired));
    this.#why(state, problem, heard);
    if (signedIn) {
      this.#text("sid", session.sid);
      this.#text("device", deviceName(session.device.user_agent), session.device.user_agent);
    }
    if (claims) {
      this.#text("token-sid", claims.sid);
      this.#text("aud", claims.aud);
      this.#text("sub", claims.sub, claims.sub);
      this.#text("roles", claims.roles?.join(", ") || "none");
      this.#text("epoch", String(claims.epoch), `epoch ${claims.epoch}`);
      this.#text("jti", claims.jti, claims.jti);
      this.#text("alg", `${head.alg}, key ${head.kid}`, `key ${head.kid}`);
      this.#text("size", `${size} characters`);
    }
    this.tick();
  }

  tick() {
    const { state, session, claims, life, problem, stale, heard, secondsLeft } = this.#device;
    if (state === "out" || !session) {
      this.#mark("token-mark", "", "");
      return;
    }
    this.#time("started", session.created_at);
    this.#time("idle", session.idle_expires_at);
    this.#time("absolute", session.expires_at);
    if (problem?.ended_at) this.#time("ended", problem.ended_at);
    else this.#text("ended", "earlier");
    if (!claims) return;
    this.#time("auth-time", claims.auth_time);

    const whole = life.until - life.from;
    const track = this.#root.querySelector(".track");
    track.style.setProperty("--left", Math.max(0, secondsLeft * 1000 / whole).toFixed(4));
    track.style.setProperty("--due", ((life.until - life.due) / whole).toFixed(4));
    this.#text("expires", secondsLeft > 0 ? `expires in ${span(Math.ceil(secondsLeft))}` : `expired ${span(-secondsLeft)} ago`);
    this.#text("refreshes", this.#next());
    const [mark, word] = this.#verdict(state, stale, heard, secondsLeft);
    this.#mark("token-mark", mark, word);
    track.dataset.mark = mark;
  }

  #next() {
    const { state, life } = this.#device;
    if (state === "ended") return "no refresh: the session has ended";
    if (state === "later") return "tries to refresh until it is answered";
    return `refreshes in ${span(Math.ceil((life.due - performance.now()) / 1000))}`;
  }

  #verdict(state, stale, heard, seconds) {
    if (seconds <= 0) return state === "later" ? ["stale", "expired, waits"] : ["revoked", "expired"];
    if (state === "ended" && heard) return ["revoked", "revoked"];
    if (state === "ended") return ["stale", `not heard of: ${span(Math.ceil(seconds + leeway))} left`];
    if (stale) return ["stale", "stale: rights changed"];
    if (state === "later") return ["stale", "valid, not renewed"];
    return ["valid", "valid"];
  }

  #why(state, problem, heard) {
    const e = this.field("why");
    e.hidden = state === "in" || state === "out" && !problem;
    if (state === "later") {
      e.dataset.mark = "stale";
      e.textContent = "The authority does not answer. Still signed in: the token serves until it expires, and is refreshed as soon as there is an answer.";
    } else if (state === "out" && problem) {
      e.dataset.mark = "revoked";
      e.textContent = problem.code === "credential_missing"
        ? "The session cookie is gone: another tab signed out, or this browser keeps no Secure cookies of http://localhost, as Safari does."
        : `The last session has ended: ${ending(problem)}.`;
    } else if (state === "ended") {
      e.dataset.mark = "revoked";
      e.textContent = `The session has ended: ${ending(problem)}. `;
      const strong = document.createElement("b");
      strong.textContent = heard?.code === "token_stale" ? "Orders had refused its token before: rights had changed"
        : heard ? `Orders heard of it after ${took(heard.ms)}` : "Orders has not heard of it";
      e.append(strong, heard?.code === "token_stale" ? "." : heard ? ", and refuses the token without asking." : ": cut off from the feed, it takes the token until it expires. Refresh and live checks refuse it.");
    }
  }

  #row(name) { return this.#root.querySelector(`[data-row="${name}"]`); }
  #hide(name, hidden) { this.field(name).hidden = hidden; }

  #text(name, text, title) {
    const e = this.field(name);
    if (e.textContent !== text) e.textContent = text;
    if (title !== undefined) e.title = title;
  }

  #time(name, unixSeconds) { this.#text(name, relative(unixSeconds), exact(unixSeconds)); }

  #mark(name, mark, word) {
    const e = this.field(name);
    if (e.textContent !== word) e.textContent = word;
    e.dataset.mark = mark;
  }
}
