// The log of calls: who called what, what came back, and what it cost.

import { meaning, span, took } from "./words.js";

const most = 60;
const leeway = 5; // seconds that verifiers add to the expiry

export class Log {
  #list = document.getElementById("log");
  #counts = { all: 0, local: 0, asked: 0 };
  #last = null; // a line that the next one like it replaces

  // service notes a call to the protected service, and returns it in short.
  service(device, answer) {
    if (answer.asked === undefined) {
      return this.#add(device.name, answer, ["no answer from the service"]);
    }
    const local = answer.asked === 0;
    this.#counts.all++;
    this.#counts[local ? "local" : "asked"]++;
    for (const [name, count] of Object.entries(this.#counts)) document.getElementById(`tally-${name}`).textContent = count;
    const calls = answer.asked === 1 ? "1 call" : `${answer.asked} calls`;
    const cost = local
      ? [{ b: "verified locally" }, `, 0 calls to the authority, ${took(answer.verify)}`]
      : [{ b: "asked the authority" }, `, ${calls}, ${took(answer.verify)}`];
    return this.#add(device.name, answer, cost, this.#remark(device, answer, local));
  }

  // #remark says what a reader may wonder at.
  #remark(device, answer, local) {
    const left = span(device.secondsLeft + leeway);
    if (device.state === "ended") {
      if (answer.ok && local) return `The session has ended, and orders has not heard: its feed is cut off. ${left} left.`;
      if (local && answer.code === "token_revoked") return "Refused, and nobody was asked: the feed had told.";
      if (!local && answer.status === 401) return "Refused: it asked. The token has not expired.";
      return "";
    }
    if (answer.ok && local && device.stale) return "The rights have changed, and orders has not heard: its feed is cut off.";
    if (answer.ok && !local && answer.path.endsWith("/balance")) return "Its feed is older than 2 s, so this route asked.";
    if (answer.ok && local && device.state === "later") return `The authority is not needed for this: ${left} left.`;
    if (answer.status === 401 && device.live) return "Refreshed and repeated, unseen by the user.";
    if (answer.status === 503) return "It could not ask, so it refused. Nobody is signed out.";
    return "";
  }

  // authority notes a call to the authority itself.
  authority(name, answer, why = "") {
    if (answer.status !== 503 && answer.status !== 0) {
      this.#add(name, answer, ["the authority answered in ", took(answer.ms)], "", why);
      return;
    }
    const again = answer.path.endsWith("/refresh");
    this.#add(name, answer, [], again ? "Nobody is signed out; it is tried again." : "Nothing has changed.", why);
  }

  // heard notes that the service has heard of a change.
  heard(device) {
    this.#line({
      who: device.name, what: "orders hears", mark: "valid", word: "heard", sense: meaning(device.heard.code),
      cost: ["by the feed, ", { b: took(device.heard.ms) }, " after the authority was told"],
    });
  }

  // event notes what was done to the authority's process.
  event(text, mark) {
    this.#line({ who: "demo", what: text, mark, word: mark === "valid" ? "done" : "failed" });
  }

  #add(who, answer, cost, note = "", why = "") {
    const mark = answer.ok ? "valid" : answer.status === 503 || answer.status === 0 ? "stale" : "revoked";
    const word = answer.status === 0 ? "none" : String(answer.status);
    const path = answer.path.replace(/^\/(api|phone)(?=\/)/, "");
    const sense = answer.code ? meaning(answer.code) : "";
    const key = answer.ok ? "" : `${who} ${answer.method} ${path} ${answer.code} ${why}`;
    this.#line({ who, what: `${answer.method} ${path}`, why, mark, word, cost, note, sense, key });
    const told = cost.map((part) => part.b ?? part).join("");
    return { mark, what: `${answer.method} ${path}: ${word}`, told: sense ? `${sense}: ${told}` : told };
  }

  // #line puts a line on top. Attempts that fail alike share one.
  #line({ who, what, why = "", mark, word, cost = [], note = "", sense = "", key = "" }) {
    document.getElementById("log-empty").hidden = true;
    if (key && this.#last?.key === key && why) {
      this.#last.count++;
      this.#last.counter.textContent = ` × ${this.#last.count}`;
      return;
    }
    const counter = element("small", "");
    const status = element("span", word, "mark");
    status.dataset.mark = mark;
    const call = element("span", "", "call");
    call.append(what, element("small", `  ${who}${why ? `, ${why}` : ""}`), counter);
    const line = document.createElement("li");
    line.append(element("time", new Date().toLocaleTimeString([], { hour12: false })), call, status);
    const parts = [...(sense ? [{ b: sense }, cost.length ? ": " : ""] : []), ...cost];
    if (parts.length) {
      const p = element("p", "", "cost");
      p.append(...parts.map((part) => typeof part === "string" ? part : element("b", part.b)));
      line.append(p);
    }
    if (note) line.append(element("p", note, "note"));
    this.#list.prepend(line);
    while (this.#list.children.length > most) this.#list.lastChild.remove();
    this.#last = { key, counter, count: 1 };
  }
}

function element(name, text, className = "") {
  const e = document.createElement(name);
  e.textContent = text;
  if (className) e.className = className;
  return e;
}
