// Connections end with the session that opened them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CounterfoilError, setClaims, watch } from "@counterfoil/node";
import { Authority, code, following, until } from "./helper.mjs";

const now = () => Math.floor(Date.now() / 1000);
const soon = () => now() + 60;
const aborted = (signal) => new Promise((go) => (signal.aborted ? go() : signal.addEventListener("abort", () => go(), { once: true })));

test("SEC-32: a watch ends with what opened it", async (t) => {
  const a = await Authority.start(t);
  await a.addKey("k2");
  const v = await following(t, a);
  let position = 1;
  for (const [entry, want] of [
    [["s", "s1", soon()], "token_revoked"],
    [["j", "j1", soon()], "token_revoked"],
    [["u", "u1", 4, 4, soon()], "token_revoked"],
    [["u", "u1", 4, 0, soon()], "token_stale"],
    [["u", "u1", 4, 4, soon(), "s1"], "token_stale"],
    [["c", "app1", 4, soon()], "token_revoked"],
    [["k", "k2", 0], "token_revoked"],
    // What concerns somebody else, or an earlier epoch.
    [["s", "other", soon()], ""],
    [["u", "u1", 3, 3, soon()], ""],
    [["c", "app1", 3, soon()], ""],
    [["k", "k3", 0], ""],
  ]) {
    const n = `-${position}`;
    entry[1] += entry[0] === "k" ? "" : n;
    if (entry[5]) entry[5] += n;
    const claims = await v.check(await a.token({ sid: `s1${n}`, jti: `j1${n}`, sub: `u1${n}`, client_id: `app1${n}` }, entry[1] === "k2" ? "k2" : "k1"));
    const { signal, stop } = watch(claims);
    assert.equal(signal.aborted, false);
    a.send(a.frame("live", [entry], `1.${++position}`));
    await until("heard", () => v.feed.position === `1.${position}`);
    // It has ended when the entry is in force.
    assert.equal(signal.aborted, want !== "", `${entry}`);
    if (want !== "") {
      assert(signal.reason instanceof CounterfoilError);
      assert.equal(signal.reason.code, want);
      const again = watch(claims); // what is revoked already is not watched
      assert.equal(again.signal.reason.code, want);
    }
    stop();
    assert.equal(v.watches, 0);
  }
});

test("a watch ends with the token unless it is renewed", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  // Two seconds are left of it, with the leeway.
  const old = () => a.token({ iat: now() - 60, exp: now() - 3 });
  const began = Date.now();
  const claims = await v.check(await old());
  const short = watch(claims);
  const kept = watch(claims);
  const fresh = await a.token({ jti: "fresh", roles: ["admin"] });
  for (const [token, rules, want] of [
    [await a.token({ sid: "another" }), {}, "token_invalid"],
    [await a.token({ sub: "another" }), {}, "token_invalid"],
    [await a.token({ client_id: "another" }), {}, "token_invalid"],
    ["nonsense", {}, "token_invalid"],
    [await a.token({ iat: now() - 60, exp: now() - 30 }), {}, "token_expired"],
    [fresh, { role: "owner" }, "insufficient_scope"],
    [fresh, { role: "admin" }, ""],
  ]) {
    assert.equal(await code(kept.renew(token, rules)), want);
    assert.equal(kept.claims.tokenId, want === "" ? "fresh" : claims.tokenId);
  }
  // An older one takes nothing away.
  assert.equal((await kept.renew(await a.token({ jti: "older", exp: now() + 30 }))).tokenId, "fresh");
  await aborted(short.signal);
  assert.equal(short.signal.reason.code, "token_expired");
  const end = (claims.expiresAt + 5) * 1000;
  assert(Date.now() >= end - 5 && Date.now() < end + 3000, `after ${Date.now() - began} ms`);
  assert.equal(await code(short.renew(fresh)), "token_expired");
  assert.equal(kept.signal.aborted, false);

  // The first token's revocation is nothing to it now; the last one's is.
  a.send(a.frame("live", [["j", claims.tokenId, soon()]], "1.2"));
  await until("heard", () => v.feed.position === "1.2");
  assert.equal(kept.signal.aborted, false);
  a.send(a.frame("live", [["j", "fresh", soon()]], "1.3"));
  await aborted(kept.signal);
  assert.equal(kept.signal.reason.code, "token_revoked");
  assert.equal(v.watches, 0);
});

test("rights that change: a watch that is renewed in time by a token of the new epoch goes on", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const w = watch(await v.check(await a.token({ epoch: 3 })));
  await w.renew(await a.token({ epoch: 4, exp: now() + 10 })); // a newer epoch counts, though it ends earlier
  assert.equal(w.claims.epoch, 4);
  a.send(a.frame("live", [["u", "u1", 4, 0, soon()]], "1.2"));
  await until("heard", () => v.feed.position === "1.2");
  assert.equal(w.signal.aborted, false);
  w.stop();
});

test("a suspended machine's watches are looked at when it wakes", async (t) => {
  const a = await Authority.start(t);
  let wall = 0;
  const v = await following(t, a, { clock: { now: () => Date.now() + wall, monotonic: () => performance.now() } });
  const { signal } = watch(await v.check(await a.token()));
  wall = 3600_000; // no timer has run
  assert.equal(v.feed.age, Infinity);
  assert.equal(signal.reason.code, "token_expired");
});

test("watches leave nothing behind", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const claims = [];
  for (let i = 0; i < 100; i++) claims.push(await v.check(await a.token({ sid: `s${i}` })));
  const before = timers();
  const all = Array.from({ length: 5000 }, (_, i) => watch(claims[i % 100]));
  assert.equal(v.watches, 5000);
  a.send(a.frame("live", [["s", "s7", soon()]], "1.2"));
  await until("heard", () => v.feed.position === "1.2");
  assert.deepEqual(new Set(all.map((w, i) => w.signal.aborted === (i % 100 === 7))), new Set([true]));
  assert.equal(v.watches, 4950);
  for (const w of all) {
    w.stop();
    w.stop();
  }
  assert.equal(v.watches, 0);
  assert(timers() <= before, `${timers()} timers, ${before} before`);
  // Whoever does not stop lets go in the end too: the first token of this test has expired by then.
  watch(await v.check(await a.token({ iat: now() - 60, exp: now() - 4 })));
  await until("let go", () => v.watches === 0);
});

test("claims and requests of a test", async (t) => {
  const alive = setInterval(() => {}, 1000); // a watch keeps no process alive
  t.after(() => clearInterval(alive));
  const claims = { issuer: "i", subject: "u", sessionId: "s", tokenId: "j", clientId: "c", issuedAt: now(), expiresAt: now() - 4, epoch: 1 };
  const request = {};
  assert.throws(() => watch(request), /requireToken/);
  setClaims(request, claims);
  const w = watch(request);
  assert.equal(w.claims, claims);
  assert.equal(await code(w.renew("x")), "unavailable");
  await aborted(w.signal);
  assert.equal(w.signal.reason.code, "token_expired");
  const endless = watch({ ...claims, expiresAt: 253402300799 });
  await new Promise((go) => setTimeout(go, 20)); // a timer that is too long would run at once
  assert.equal(endless.signal.aborted, false);
  endless.stop();
});
