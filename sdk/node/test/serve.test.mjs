// The package against a real counterfoil serve. COUNTERFOIL is the path of the program.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import express from "express";
import { claimsOf, createVerifier } from "@counterfoil/node";
import { requireToken } from "@counterfoil/node/express";
import { code, issuer, quiet, until } from "./helper.mjs";

const program = process.env.COUNTERFOIL;

class Serve {
  constructor(t) {
    this.dir = mkdtempSync(join(tmpdir(), "counterfoil-node-"));
    this.database = `sqlite:${join(this.dir, "counterfoil.db")}`;
    t.after(async () => {
      await this.stop("SIGINT");
      rmSync(this.dir, { recursive: true });
    });
  }

  async start(listen = "127.0.0.1:0") {
    const args = ["serve", "--listen", listen, "--issuer", issuer, "--database", this.database, "--audience", "orders,billing", "--token-lifetime", "5m", "--metrics-listen", "127.0.0.1:0"];
    const child = (this.child = spawn(program, args, { cwd: this.dir, stdio: ["ignore", "pipe", "pipe"] }));
    let said = "";
    for (const out of [child.stdout, child.stderr]) out.on("data", (chunk) => (said += chunk));
    this.url = await until("counterfoil is ready", () => {
      assert.equal(child.exitCode, null, said);
      return /counterfoil is ready.* listen=(http:\/\/\S+)/.exec(said)?.[1];
    });
    this.metrics = /metrics=(http:\/\/\S+)/.exec(said)[1];
    this.backend ??= this.key("backend", "sessions");
    this.verify ??= this.key("orders", "verify");
  }

  async stop(signal) {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill(signal);
    await once(this.child, "exit");
  }

  key(name, scope) {
    return execFileSync(program, ["api-key", "create", "--database", this.database, "--name", name, "--scope", scope], { cwd: this.dir, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  }

  async call(method, path, body, key = this.backend) {
    const res = await fetch(this.url + path, {
      method,
      headers: { Authorization: `Bearer ${key}`, ...(body ? { "Content-Type": "application/json" } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await res.text();
    assert(res.ok, `${method} ${path}: ${res.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  signIn(subject, more = {}) {
    return this.call("POST", "/v1/sessions", { subject, amr: ["pwd"], ...more });
  }

  async refresh(grant, body) {
    return (await this.call("POST", "/v1/auth/refresh", body, grant.session_token)).access_token;
  }
}

test("an Express service beside counterfoil serve", { skip: program ? false : "COUNTERFOIL is not set", timeout: 120_000 }, async (t) => {
  const serve = new Serve(t);
  await serve.start();
  const options = { issuer, audience: "orders", authority: serve.url, apiKey: serve.verify, logger: quiet };
  const verifier = await createVerifier(options);
  t.after(() => verifier.close());
  assert.equal(verifier.ready, true);

  const app = express();
  const show = (req, res) => res.json({ ...claimsOf(req), payload: undefined });
  app.get("/orders", requireToken(verifier), show);
  app.get("/admin", requireToken(verifier, { role: "admin" }), show);
  app.get("/account", requireToken(verifier, { live: true, maxAuthAge: 600 }), show);
  app.get("/payments", requireToken(verifier, { maxFeedAge: 1 }), show);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close() && server.closeAllConnections());
  const get = async (path, token) => {
    const res = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: { Authorization: `Bearer ${token}` } });
    const body = await res.json();
    return { status: res.status, body, code: body.code ?? "", headers: res.headers };
  };
  const answers = async (paths, token) => Object.fromEntries(await Promise.all(paths.map(async (path) => [path, (await get(path, token)).code])));
  const all = ["/orders", "/admin", "/account", "/payments"];

  const ann = await serve.signIn("ann", { roles: ["admin"], scope: ["orders:read"] });
  const got = await get("/orders", ann.access_token);
  assert.equal(got.status, 200);
  assert.equal(got.body.subject, "ann");
  assert.equal(got.body.sessionId, ann.session.sid);
  assert.deepEqual(got.body.roles, ["admin"]);
  assert.deepEqual(got.body.scope, ["orders:read"]);
  assert.deepEqual(got.body.methods, ["pwd"]);
  assert.deepEqual(await answers(all, ann.access_token), { "/orders": "", "/admin": "", "/account": "", "/payments": "" });
  assert.equal((await get("/orders", await serve.refresh(ann, { audience: "billing" }))).code, "audience_mismatch");
  assert.equal((await get("/orders", ann.session_token)).code, "token_invalid");

  await t.test("the authority shows the lag that this verifier reports", async () => {
    const reports = async () => Number(/^counterfoil_verifier_lag_seconds_count (\d+)$/m.exec(await (await fetch(serve.metrics)).text())[1]);
    await until("a report", async () => (await reports()) > 0);
  });

  await t.test("a session that ends is refused at once", async () => {
    const other = await serve.signIn("ann");
    const kept = await serve.signIn("ann");
    const began = performance.now();
    await serve.call("DELETE", `/v1/sessions/${other.session.sid}`);
    // The live check tells why, unless the feed was quicker.
    assert.match((await get("/account", other.access_token)).code, /^(session|token)_revoked$/);
    await until("refused", async () => (await get("/orders", other.access_token)).code === "token_revoked");
    t.diagnostic(`revoked, and refused ${(performance.now() - began).toFixed(1)} ms later`);
    assert.equal((await get("/orders", kept.access_token)).status, 200);
  });

  await t.test("rights that change make tokens stale, and one refresh mends it", async () => {
    await serve.call("POST", "/v1/users/ann/rights-changed");
    await until("stale", async () => (await get("/orders", ann.access_token)).code === "token_stale");
    const fresh = await serve.refresh(ann);
    assert.equal((await get("/orders", fresh)).status, 200);
  });

  await t.test("signed out everywhere", async () => {
    const fresh = await serve.refresh(ann);
    await serve.call("DELETE", "/v1/users/ann/sessions");
    await until("refused", async () => (await get("/orders", fresh)).code === "token_revoked");
  });

  await t.test("a later verifier learns all of it from the snapshot", async () => {
    const late = await createVerifier(options);
    t.after(() => late.close());
    assert.equal(late.ready, true);
    assert.equal(await code(late.check(ann.access_token)), "token_revoked");
  });

  await t.test("kill -9: the default route goes on, stricter ones say 503, and what was missed is told afterwards", async () => {
    const bob = await serve.signIn("bob", { roles: ["admin"] });
    const eve = await serve.signIn("eve");
    const strict = verifier.checker({ maxFeedAge: 1 });
    assert.equal(await code(strict(bob.access_token)), "");
    await serve.stop("SIGKILL");
    await until("the feed is old", () => verifier.feed.age > 1000);
    assert.deepEqual(await answers(all, bob.access_token), { "/orders": "", "/admin": "", "/account": "unavailable", "/payments": "unavailable" });
    assert.equal((await get("/account", bob.access_token)).headers.get("Retry-After"), "1");

    execFileSync(program, ["session", "revoke", "--database", serve.database, eve.session.sid], { cwd: serve.dir });
    assert.equal((await get("/orders", eve.access_token)).status, 200, "nobody could tell");
    await serve.start(new URL(serve.url).host);
    await until("told", async () => (await get("/orders", eve.access_token)).code === "token_revoked");
    await until("young again", async () => (await code(strict(bob.access_token))) === "");
    assert.equal((await get("/account", bob.access_token)).status, 200);
    assert(verifier.feed.connections >= 2);
  });
});
