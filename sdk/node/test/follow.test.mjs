import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { Authority, code, following, until } from "./helper.mjs";

const feed = "/v1/revocations";
const introspect = "/oauth2/introspect";
const soon = () => Math.floor(Date.now() / 1000) + 60;

/** Clocks that a test can set apart from the machine's. */
function clocks() {
  const c = { wall: 0, monotonic: 0 };
  return { set: c, clock: { now: () => Date.now() + c.wall, monotonic: () => performance.now() + c.monotonic } };
}

test("every kind of entry is felt", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  assert.equal(a.requests.find((r) => r.path === feed).headers.authorization, "Bearer cf_sk_test");
  let position = 1;
  for (const [entry, want, claims] of [
    [["s", "s2", soon()], "token_revoked", { sid: "s2" }],
    [["j", "j2", soon()], "token_revoked", { jti: "j2" }],
    [["u", "u2", 4, 0, soon()], "token_stale", { sub: "u2" }],
    [["u", "u3", 4, 4, soon()], "token_revoked", { sub: "u3" }],
    [["u", "u4", 4, 4, soon(), "s4"], "token_stale", { sub: "u4", sid: "s4" }],
    [["c", "app2", 4, soon()], "token_revoked", { client_id: "app2" }],
  ]) {
    const token = await a.token(claims);
    assert.equal(await code(v.check(token)), "");
    a.send(a.frame("live", [["new kind", 1], entry], `1.${++position}`));
    await until(`refused by ${entry}`, async () => (await code(v.check(token))) === want);
  }
  assert.equal(v.feed.position, "1.7");
  assert.equal(v.feed.skipped, 6);
  assert.equal(await code(v.check(await a.token())), "");
  assert.equal(await code(v.check(await a.token({ sub: "u3", epoch: 4 }))), "", "minted after");
});

test("not ready before the snapshot is whole", async (t) => {
  const a = await Authority.start(t);
  a.first = (res) => res.write(a.frame("snapshot", [["s", "s1", soon()]]) + a.beat());
  const v = await following(t, a, { signal: AbortSignal.timeout(100) });
  assert.equal(v.ready, false);
  assert.equal(v.feed.age, Infinity);
  assert.equal(await code(v.check(await a.token({ sid: "s2" }))), "unavailable");
  a.send(a.frame("snapshot", [], "1.1") + a.beat());
  await v.wait();
  assert.equal(await code(v.check(await a.token())), "token_revoked");
  assert.equal(await code(v.check(await a.token({ sid: "s2" }))), "");
});

test("not ready before the keys are as new as the feed says", async (t) => {
  const a = await Authority.start(t);
  a.first = (res) => res.write(a.frame("snapshot", [], "1.1") + a.beat({ keys: 6 }));
  const v = await following(t, a, { signal: AbortSignal.timeout(100) });
  assert.equal(v.ready, false);
  a.set.cf_version = 6;
  const beats = setInterval(() => a.send(a.beat()), 50);
  t.after(() => clearInterval(beats));
  await v.wait();
});

test("it goes on where it was, and from the beginning when cut within a snapshot", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const seen = () => a.requests.filter((r) => r.path === feed).map((r) => r.headers["last-event-id"]);
  a.send(a.frame("live", [["s", "gone", soon()]], "1.2"));
  await until("the entry", () => v.feed.position === "1.2");
  a.first = (res) => {
    a.first = (next) => next.write(a.frame("snapshot", [], "2.9") + a.beat());
    res.write(a.frame("live", [], "1.3") + a.beat() + a.frame("snapshot", []));
    setTimeout(() => res.destroy(), 20);
  };
  for (const res of a.streams) res.destroy();
  await until("the third connection", () => v.feed.position === "2.9");
  assert.deepEqual(seen(), [undefined, "1.2", undefined]);
  assert.equal(v.feed.connections, 3);
  assert.equal(await code(v.check(await a.token({ sid: "gone" }))), "token_revoked", "what was heard before is kept");
});

test("a feed that is refused, malformed or behind is asked for again", async (t) => {
  const a = await Authority.start(t);
  a.feedStatus = 503;
  const v = await following(t, a, { signal: AbortSignal.timeout(50) });
  assert.equal(v.ready, false);
  await until("another try", () => a.asked[feed] > 1);
  a.first = (res) => {
    a.first = (next) => a.snapshot(next);
    res.write(a.frame("snapshot", [], "1.1") + "event: live\ndata: [[\"s\"]]\n\n");
  };
  a.feedStatus = 200;
  await v.wait();
  assert.equal(v.feed.connected, true);
});

test("a feed that goes over to another timeline, or begins in the middle, is begun anew", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const asked = () => a.requests.filter((r) => r.path === feed).map((r) => r.headers["last-event-id"]);
  a.first = (res) => {
    a.first = (next) => next.write(a.frame("snapshot", [], "2.1") + a.beat());
    res.write(a.frame("live", [["s", "unasked", soon()]], "2.5") + a.beat());
  };
  a.send(a.frame("live", [["s", "s9", soon()]], "2.5"));
  await until("the snapshot of the other timeline", () => v.feed.position === "2.1");
  assert.deepEqual(asked(), [undefined, undefined, undefined]);
  assert.equal(await code(v.check(await a.token({ sid: "s9" }))), "token_revoked");
  assert.equal(await code(v.check(await a.token({ sid: "unasked" }))), "");
});

test("the API key is shown to the issuer's authority only", async (t) => {
  const a = await Authority.start(t);
  a.documents["/.well-known/oauth-authorization-server"] = () => ({ issuer: "https://other.example" });
  await assert.rejects(following(t, a));
  assert.equal(a.requests.filter((r) => r.headers.authorization).length, 0);
});

test("age is told from the store on, and by when the request was sent", async (t) => {
  const a = await Authority.start(t);
  const { set, clock } = clocks();
  const v = await following(t, a, { clock });
  await until("young", () => v.feed.age < 500);
  const now = a.clock();
  // What the store had 2 s ago is what this vouches for.
  a.clock = () => now + 100;
  set.wall = set.monotonic = 100_000;
  assert(v.feed.age >= 99_000, `${v.feed.age}`);
  a.send(a.beat({ age_ms: 2000 }));
  await until("a beat", () => v.feed.age < 10_000);
  assert(v.feed.age >= 2000 && v.feed.age < 3000, `${v.feed.age}`);
  // A stream that is late: the node's clock went on by 1 s, ours by 5 s.
  a.clock = () => now + 101;
  set.wall = set.monotonic = 105_000;
  a.send(a.beat());
  await until("a beat", () => v.feed.age < 6000);
  assert(v.feed.age >= 4000, `${v.feed.age}`);
  // It does not get younger without a beat.
  set.wall = set.monotonic = 205_000;
  assert(v.feed.age >= 104_000, `${v.feed.age}`);
});

test("maxFeedAge falls back to live checks, once for that time", async (t) => {
  const a = await Authority.start(t);
  const { set, clock } = clocks();
  const v = await following(t, a, { clock });
  const token = await a.token();
  const rules = { maxFeedAge: 2 };
  const check = v.checker(rules);
  assert.equal(await code(check(token)), "");
  assert.equal(a.asked[introspect], undefined, "asked though the feed is young");

  set.wall = set.monotonic = 3000; // nothing was heard for three seconds
  assert.deepEqual(await Promise.all(Array.from({ length: 30 }, () => code(check(token)))), Array(30).fill(""));
  assert.equal(await code(check(token)), "");
  assert.equal(a.asked[introspect], 1);
  assert.equal(await code(v.check(token)), "", "the default route goes on");
  set.wall = set.monotonic = 5100;
  assert.equal(await code(check(token)), "");
  assert.equal(a.asked[introspect], 2, "an answer served for longer than the route takes");

  a.documents[introspect] = () => ({ active: false, cf_code: "session_revoked" });
  set.wall = set.monotonic = 8000;
  assert.equal(await code(check(token)), "session_revoked");
  a.documents[introspect] = () => ({ status: 500 });
  assert.equal(await code(check(token)), "session_revoked", "a refusal is for good");
  assert.equal(await code(check(await a.token())), "unavailable");
  assert.equal(await code(v.check(token)), "");

  a.clock = () => Date.now() / 1000 + 8;
  a.send(a.beat());
  await until("young again", async () => (await code(check(token))) === "");
});

test("many fallbacks at once are capped", async (t) => {
  const a = await Authority.start(t);
  const { set, clock } = clocks();
  const v = await following(t, a, { clock, liveTimeout: 10 });
  set.wall = set.monotonic = 3000;
  let now = 0, most = 0;
  a.documents[introspect] = async () => {
    most = Math.max(most, ++now);
    await new Promise((go) => setTimeout(go, 5));
    now--;
    return { active: true };
  };
  const tokens = await Promise.all(Array.from({ length: 200 }, (_, i) => a.token({ sid: `s${i}`, exp: Math.floor(Date.now() / 1000) + 200 })));
  assert.deepEqual(new Set(await Promise.all(tokens.map((token) => code(v.check(token, { maxFeedAge: 2 }))))), new Set([""]));
  assert.equal(a.asked[introspect], 200);
  assert(most <= 64, `${most} at once`);
});

test("a machine that was suspended knows nothing of its feed's age", async (t) => {
  const a = await Authority.start(t);
  const { set, clock } = clocks();
  const v = await following(t, a, { clock });
  assert(v.feed.age < 500);
  a.first = () => {}; // answers, and says nothing
  set.wall = 3600_000; // the monotonic clock stood still
  assert.equal(v.feed.age, Infinity);
  await until("another connection", () => a.asked[feed] === 2);
  set.wall = 0; // and a clock that is set back is no better
  a.first = (res) => a.snapshot(res);
  await until("following again", () => v.feed.age < 500);
});

test("it reports its lag to the authority", async (t) => {
  const a = await Authority.start(t);
  const asked = () => a.requests.find((r) => r.path === "/v1/revocations/clock");
  // All of it comes at once: what the store had 700 ms before, an entry, and that the store has nothing more.
  a.first = (res) => res.write(a.frame("snapshot", [["s", "old", soon()]], "1.1") + a.beat({ age_ms: 700 }) + a.frame("live", [["s", "s9", soon()]], "1.2") + a.beat());
  const v = await following(t, a);
  assert(v.feed.lag >= 700 && v.feed.lag < 3000, `${v.feed.lag}`);
  assert(v.feed.age < v.feed.lag);
  await until("the clock was asked for", asked);
  const told = asked().headers["counterfoil-lag-ms"];
  assert.match(told, /^[0-9]+$/);
  assert.equal(Number(told), Math.round(v.feed.lag));

  // Without news it is the age; without an age, nothing.
  const quiet = await Authority.start(t);
  const w = await following(t, quiet);
  assert.equal(w.feed.lag, 0);
  await until("the clock was asked for", () => quiet.asked["/v1/revocations/clock"]);
  const { headers } = quiet.requests.find((r) => r.path === "/v1/revocations/clock");
  assert(Number(headers["counterfoil-lag-ms"]) < 5000, headers["counterfoil-lag-ms"]);
});

test("entries are kept by the own clock", async (t) => {
  const a = await Authority.start(t);
  const { set, clock } = clocks();
  const v = await following(t, a, { clock });
  // The authority's clock is an hour behind, so it says that this is long over.
  a.send(a.frame("live", [["s", "s1", soon() - 3700]], "1.2"));
  await until("the entry", () => v.feed.position === "1.2");
  const exp = Math.floor(Date.now() / 1000) + 290;
  const token = await a.token({ exp });
  assert.equal(await code(v.check(token)), "token_revoked");
  set.wall = set.monotonic = 289_000;
  a.send(a.frame("live", [["s", "other", soon()]], "1.3"));
  await until("another entry", () => v.feed.position === "1.3");
  assert.equal(await code(v.check(token)), "token_revoked", "left while a token lives that it refuses");
});

test("a verifier keeps no process alive", async (t) => {
  const a = await Authority.start(t);
  const program = `
    import { createVerifier } from "@counterfoil/node";
    const v = await createVerifier({ issuer: "https://app.example", audience: "orders", authority: ${JSON.stringify(a.url)}, apiKey: "cf_sk_test" });
    console.log(v.ready);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { cwd: new URL("..", import.meta.url), stdio: ["ignore", "pipe", "inherit"], timeout: 20_000 });
  let said = "";
  child.stdout.on("data", (chunk) => (said += chunk));
  const [status] = await once(child, "close");
  assert.equal(status, 0);
  assert.equal(said, "true\n");
});
