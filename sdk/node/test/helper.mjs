import { once } from "node:events";
import http from "node:http";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { createVerifier } from "@counterfoil/node";

export const issuer = "https://app.example";
export const quiet = { warn() {}, error() {} };

/** Calls until it gives something, or fails after ten seconds. */
export async function until(what, condition) {
  for (const end = performance.now() + 10_000; performance.now() < end; ) {
    const value = await condition();
    if (value) return value;
    await new Promise((go) => setTimeout(go, 2));
  }
  throw new Error(`in ten seconds it did not come to: ${what}`);
}

/**
 * An authority whose every answer a test decides on: what is in `documents` is served, `asked` counts, and `streams` are
 * the feeds that are open.
 */
export class Authority {
  asked = {};
  requests = [];
  streams = new Set();
  documents = {};
  keys = {};
  set = { cf_version: 5, keys: [] };
  feedStatus = 200;
  first = (res) => this.snapshot(res); // what a new stream begins with
  clock = () => Date.now() / 1000;

  static async start(t) {
    const a = new Authority();
    a.server = http.createServer((req, res) => a.handle(req, res));
    a.server.listen(0, "127.0.0.1");
    await once(a.server, "listening");
    a.url = `http://127.0.0.1:${a.server.address().port}`;
    a.documents["/.well-known/oauth-authorization-server"] = () => ({ issuer, cf_max_token_lifetime: 300 });
    a.documents["/.well-known/jwks.json"] = () => a.set;
    a.documents["/oauth2/introspect"] = () => ({ active: true });
    a.documents["/v1/revocations/clock"] = () => ({ node: "n1", now: a.clock() });
    await a.addKey("k1");
    t.after(() => a.stop());
    return a;
  }

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }

  async addKey(kid) {
    const { publicKey, privateKey } = await generateKeyPair("ES256");
    this.keys[kid] = privateKey;
    this.set = { cf_version: this.set.cf_version, keys: [...this.set.keys, { ...(await exportJWK(publicKey)), kid, alg: "ES256", use: "sig" }] };
  }

  async token(claims = {}, kid = "k1") {
    const now = Math.floor(Date.now() / 1000);
    const all = { iss: issuer, sub: "u1", aud: "orders", client_id: "default", sid: "s1", iat: now, exp: now + 60, jti: `j${Math.random()}`, epoch: 3, ...claims };
    return new SignJWT(all).setProtectedHeader({ alg: "ES256", typ: "at+jwt", kid }).sign(this.keys[kid]);
  }

  async handle(req, res) {
    const path = req.url;
    this.asked[path] = (this.asked[path] ?? 0) + 1;
    let body = "";
    for await (const chunk of req) body += chunk;
    this.requests.push({ path, method: req.method, headers: req.headers, body });
    if (path === "/v1/revocations" && this.feedStatus === 200) {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      this.streams.add(res);
      res.on("close", () => this.streams.delete(res));
      this.first(res);
      return;
    }
    try {
      const answer = path === "/v1/revocations" ? { status: this.feedStatus } : await this.documents[path]?.({ body, headers: req.headers });
      if (answer === undefined) throw { status: 404 };
      if (answer.status) throw answer;
      res.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
    } catch (error) {
      res.writeHead(error.status ?? 500, { "Content-Type": "application/json", ...error.headers }).end(error.body ?? "{}");
    }
  }

  frame(kind, entries, position) {
    return `${position ? `id: ${position}\n` : ""}event: ${kind}\ndata: ${JSON.stringify(entries)}\n\n`;
  }

  beat(more = {}) {
    return `event: beat\ndata: ${JSON.stringify({ age_ms: 0, now: this.clock(), keys: this.set.cf_version, node: "n1", ...more })}\n\n`;
  }

  snapshot(res, entries = [], position = "1.1") {
    res.write(this.frame("snapshot", entries, position) + this.beat());
  }

  /** Sends to every stream. */
  send(text) {
    for (const res of this.streams) res.write(text);
  }
}

/** A verifier of that authority, closed with the test. */
export async function following(t, authority, options = {}) {
  const v = await createVerifier({ issuer, audience: "orders", authority: authority.url, apiKey: "cf_sk_test", logger: quiet, ...options });
  t.after(() => v.close());
  return v;
}

/** The code with which a promise is refused; "" if it is not. */
export async function code(promise) {
  try {
    await promise;
    return "";
  } catch (error) {
    if (error.name !== "CounterfoilError") throw error;
    return error.code;
  }
}
