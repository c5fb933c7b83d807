// A real counterfoil serve with an API behind one origin, as a reverse proxy puts them, and a browser's fetch with its
// cookie jar. COUNTERFOIL is the path of the program.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Calls until it gives something, or fails after ten seconds. */
export async function until(what, condition) {
  for (const end = performance.now() + 10_000; performance.now() < end; ) {
    const value = await condition();
    if (value) return value;
    await new Promise((go) => setTimeout(go, 5));
  }
  throw new Error(`in ten seconds it did not come to: ${what}`);
}

const send = globalThis.fetch; // a test may put a browser's in its place

export const password = "a long walk to the lighthouse at noon";

/** {url, serve, seen}: the origin, the authority behind it, and the requests that came. */
export async function origin(t) {
  const dir = mkdtempSync(join(tmpdir(), "counterfoil-browser-"));
  const args = ["serve", "--listen", "127.0.0.1:0", "--issuer", "http://127.0.0.1:8700", "--database", `sqlite:${join(dir, "counterfoil.db")}`, "--audience", "app,orders"];
  const child = spawn(process.env.COUNTERFOIL, args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const out of [child.stdout, child.stderr]) out.on("data", (chunk) => (said += chunk));
  const serve = await until("counterfoil is ready", () => {
    assert.equal(child.exitCode, null, said);
    return /counterfoil is ready.* listen=(http:\/\/\S+)/.exec(said)?.[1];
  });
  const seen = [];
  const server = http.createServer((req, res) => {
    seen.push(req);
    // The smallest protected route there is.
    const path = req.url.startsWith("/auth/") ? "/v1" + req.url : "/oauth2/userinfo";
    const on = http.request(serve + path, { method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    });
    on.on("error", () => res.destroy());
    res.on("close", () => on.destroy());
    req.pipe(on);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    server.closeAllConnections();
    server.close();
    child.kill("SIGINT");
    if (child.exitCode === null) await once(child, "exit");
    rmSync(dir, { recursive: true });
  });
  return { url: `http://127.0.0.1:${server.address().port}`, serve, seen };
}

/** A cookie jar for one host, and a fetch that keeps it. */
export class Jar {
  cookies = new Map();
  answers = [];

  get header() {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  fetch = async (input, init = {}) => {
    const headers = new Headers(init.headers);
    if (this.cookies.size > 0) headers.set("Cookie", this.header);
    const response = await send(input, { ...init, headers });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (/max-age=0|expires=thu, 01 jan 1970/i.test(line)) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    this.answers.push(response.status);
    return response;
  };
}

/** What createCore takes, on real time. Several tabs of one jar share a channel. */
export function platform(base, jar, tabs = []) {
  const own = { to: undefined };
  tabs.push(own);
  return {
    base,
    baseURI: () => base,
    fetch: jar.fetch,
    mono: () => performance.now(),
    wall: () => Date.now(),
    random: () => Math.random(),
    timer(ms, call) {
      const timer = setTimeout(call, ms);
      return () => clearTimeout(timer);
    },
    visible: () => true,
    post(signal) {
      for (const tab of tabs) if (tab !== own) setImmediate(() => tab.to?.signal(structuredClone(signal)));
    },
    listen(to) {
      own.to = to;
      return () => (own.to = undefined);
    },
  };
}
