// Tokens that were verified before: remembered, within bounds, and never in the way of a revocation.
import assert from "node:assert/strict";
import { test } from "node:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { ConfigError, CounterfoilError, createVerifier } from "../dist/index.js";
import { Heap } from "../dist/heap.js";
import { parseKeySet } from "../dist/jwks.js";
import { Origins } from "../dist/origins.js";
import { parseEntries, RevocationTable } from "../dist/revocations.js";
import { Verifier } from "../dist/verifier.js";
import { tokenBudget, WarmTable } from "../dist/warm.js";
import { code, issuer, quiet } from "./helper.mjs";

const start = 1763769600; // seconds
const pairs = {};
const pair = async (name) => (pairs[name] ??= await generateKeyPair(name.startsWith("ed") ? "EdDSA" : "ES256"));

async function jwk(name, kid = "k1") {
  return { ...(await exportJWK((await pair(name)).publicKey)), kid, alg: name.startsWith("ed") ? "EdDSA" : "ES256", use: "sig" };
}

async function mint(claims = {}) {
  const all = { iss: issuer, sub: "u1", aud: "orders", client_id: "default", sid: "s1", iat: start, exp: start + 60, jti: "j1", epoch: 7, ...claims };
  return new SignJWT(all).setProtectedHeader({ alg: "ES256", typ: "at+jwt", kid: "k1" }).sign((await pair("a")).privateKey);
}

/** A verifier of which a test holds all parts. */
class Local {
  at = start * 1000;
  ready = true;
  longest = 300;
  meanwhile = () => {}; // between the look-up of a key and its use

  static async open(more = {}) {
    const l = new Local();
    const clock = { now: () => l.at, monotonic: () => l.at };
    l.table = new RevocationTable(clock);
    await l.publish(await jwk("a"));
    l.v = new Verifier({
      issuer,
      audience: "orders",
      origins: new Origins([]),
      keys: {
        known(kid) {
          const key = l.set.keys.find((k) => k.kid === kid);
          l.meanwhile();
          return key && { key, longest: l.longest };
        },
        async find() {
          throw new CounterfoilError("token_invalid", "unknown kid");
        },
      },
      revocations: l.table,
      ready: () => l.ready,
      clock,
      cacheTokens: 100,
      log: quiet,
      ...more,
    });
    return l;
  }

  async publish(...keys) {
    this.set = await parseKeySet(JSON.stringify({ keys }));
    this.table.advance();
  }

  apply(...entries) {
    this.table.apply(parseEntries(JSON.stringify(entries)).entries);
  }
}

test("a remembered token says the same, whole and frozen", async () => {
  const l = await Local.open();
  const token = await mint({ roles: ["a"], scope: "x y", plan: { seats: [1, { of: 2 }] } });
  const first = await l.v.check(token);
  const again = await l.v.check(Buffer.from(token).toString());
  assert.equal(again, first);
  const cold = await (await Local.open({ cacheTokens: 0 })).v.check(token);
  assert.deepEqual(again, cold);
  for (const part of [again, again.roles, again.scope, again.payload, again.payload.plan, again.payload.plan.seats, again.payload.plan.seats[1]]) {
    assert(Object.isFrozen(part), "a request could change what the next one sees");
  }
  assert.notEqual(await (await Local.open({ cacheTokens: 0 })).v.check(token), cold);
});

test("rules hold for remembered tokens", async () => {
  const l = await Local.open();
  const token = await mint({ roles: ["editor"], scope: "x", auth_time: start - 100 });
  for (let i = 0; i < 2; i++) {
    assert.equal(await code(l.v.check(token)), "");
    assert.equal(await code(l.v.check(token, { role: "editor", scope: "x", maxAuthAge: 100 })), "");
    assert.equal(await code(l.v.check(token, { role: "admin" })), "insufficient_scope");
    assert.equal(await code(l.v.check(token, { maxAuthAge: 99 })), "insufficient_user_authentication");
    assert.equal(await code(l.v.check(token, { maxTokenAge: 20 })), "");
  }
  l.at += 20_001;
  assert.equal(await code(l.v.check(token, { maxTokenAge: 20 })), "token_too_old");
  assert.equal(await code(l.v.check(token)), "");
});

test("SEC-66: both ends of a remembered token's time", async () => {
  const l = await Local.open();
  const token = await mint({ nbf: start + 2 });
  const first = await l.v.check(token);
  for (const [at, want] of [[0, ""], [-3000, ""], [-3001, "token_invalid"], [64_999, ""], [65_000, "token_expired"], [64_000, ""]]) {
    l.at = start * 1000 + at;
    assert.equal(await code(l.v.check(token)), want, `at ${at}`);
    if (want === "") assert.equal(await l.v.check(token), first, `at ${at}: forgotten`);
  }
});

test("SEC-121: a remembered token feels revocations", async (t) => {
  for (const [entry, want] of [
    [["s", "s1", 0], "token_revoked"],
    [["j", "j1", 0], "token_revoked"],
    [["c", "default", 8, 0], "token_revoked"],
    [["u", "u1", 8, 8, 0], "token_revoked"],
    [["u", "u1", 8, 0, 0], "token_stale"],
    [["u", "u1", 8, 8, 0, "s1"], "token_stale"],
    [["k", "k1", 0], "token_invalid"],
    [["s", "another", 0], ""],
    [["j", "j2", 0], ""],
    [["u", "u1", 7, 7, 0], ""],
    [["k", "k2", 0], ""],
  ]) {
    await t.test(JSON.stringify(entry), async () => {
      const l = await Local.open();
      const token = await mint();
      const first = await l.v.check(token);
      l.apply(entry);
      assert.equal(await code(l.v.check(token)), want);
      if (want === "") assert.equal(await l.v.check(token), first, "forgotten");
    });
  }
});

test("a remembered token feels changes of the keys", async () => {
  const l = await Local.open();
  const token = await mint();
  for (const [what, change, want] of [
    ["nothing", async () => l.table.advance(), ""],
    ["fetched anew", async () => l.publish(await jwk("a")), ""],
    ["beside another", async () => l.publish(await jwk("b", "k2"), await jwk("a")), ""],
    ["gone", async () => l.publish(await jwk("a", "k2")), "token_invalid"],
    ["another key", async () => l.publish(await jwk("b")), "token_invalid"],
    ["another algorithm", async () => l.publish(await jwk("ed")), "token_invalid"],
    ["shorter life", async () => { l.longest = 59; l.table.advance(); }, "token_invalid"],
    ["not ready", async () => { l.ready = false; }, "unavailable"],
  ]) {
    l.longest = 300;
    l.ready = true;
    await l.publish(await jwk("a"));
    const first = await l.v.check(token);
    await change();
    assert.equal(await code(l.v.check(token)), want, what);
    if (want === "") assert.equal(await l.v.check(token), first, `${what}: forgotten`);
  }
});

test("SEC-121: no late entry hides a revocation", async () => {
  // It comes in the middle of a full check, and in the middle of asking again about a remembered token.
  const within = { "full check": async () => {}, "asked again": async (l, token) => { await l.v.check(token); l.table.advance(); } };
  for (const [when, before] of Object.entries(within)) {
    for (const entry of [["s", "s1", 0], ["u", "u1", 8, 0, 0], ["j", "j1", 0], ["k", "k1", 0]]) {
      const l = await Local.open();
      const token = await mint();
      await before(l, token);
      let met = false;
      l.meanwhile = () => {
        l.meanwhile = () => {};
        met = true;
        l.apply(entry);
      };
      await code(l.v.check(token));
      assert(met);
      assert.notEqual(await code(l.v.check(token)), "", `${when}: ${entry}`);
    }
  }
  // While the signature is checked, which is elsewhere.
  const l = await Local.open();
  const token = await mint();
  const checking = code(l.v.check(token));
  await Promise.resolve();
  l.apply(["s", "s1", 0]);
  assert.equal(await checking, "token_revoked");
  assert.equal(await code(l.v.check(token)), "token_revoked");
});

test("SEC-33: only the exact text of a verified token is remembered", async () => {
  const l = await Local.open({ cacheTokens: 1 });
  const token = await mint();
  const first = await l.v.check(token);
  const [head, payload, signature] = token.split(".");
  const forged = Buffer.from(Buffer.from(payload, "base64url").toString().replace('"u1"', '"u2"')).toString("base64url");
  for (let i = 0; i < 500; i++) {
    // The very signature, over something else; and what nobody signed.
    assert.equal(await code(l.v.check(`${head}.${forged}.${signature}`)), "token_invalid");
    assert.equal(await code(l.v.check(`${head}.${payload}.${Buffer.from(crypto.getRandomValues(new Uint8Array(64))).toString("base64url")}`)), "token_invalid");
    for (const text of [token + "A", token.slice(1), token + "=", ` ${token}`, ""]) assert.equal(await code(l.v.check(text)), "token_invalid");
  }
  assert.equal(await l.v.check(token), first, "pushed out");
});

const claims = (more = {}) => ({ roles: [], scope: [], payload: { sub: "u1", ...more } });
const entry = (until, more) => ({ claims: claims(more), key: { kid: "k1" }, from: 0, until, stamp: 1 });
const text = (n) => `${n}`.padStart(90, "x");

test("SEC-39: the table is bounded; the expired go first, then the next to expire", () => {
  const w = new WarmTable(10);
  const order = Array.from({ length: 500 }, (_, i) => (i * 7919) % 500);
  for (const i of order) w.insert(text(i), entry(1000 + i), 0);
  assert(w.used <= 10 * tokenBudget && w.size >= 10, `${w.used} bytes, ${w.size} tokens`);
  for (let i = 0; i < 500; i++) assert.equal(w.find(text(i)) !== undefined, i >= 500 - w.size, `token ${i}`);
  // One that is larger than all the others together finds no place, and pushes nobody out.
  const size = w.size;
  w.insert(text("large"), entry(1e9, { more: "x".repeat(10 * tokenBudget) }), 0);
  assert.equal(w.size, size);
  // The expired leave though there is room.
  const roomy = new WarmTable(1000);
  for (let i = 0; i < 50; i++) roomy.insert(text(i), entry(i), 0);
  for (let i = 0; i < 40; i++) roomy.insert(text(`late ${i}`), entry(1e9), 100);
  assert.equal(roomy.size, 40);
  // The books are right in the end.
  for (let i = 0; i < 40; i++) roomy.drop(roomy.find(text(`late ${i}`)));
  assert.equal(roomy.size + roomy.used, 0);
  roomy.insert("short", entry(1e9), 0);
  assert.equal(roomy.size, 0);
});

test("a heap keeps its order, whatever leaves from the middle", () => {
  let seed = Math.floor(Math.random() * 2 ** 31);
  const shown = seed;
  const dice = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 50; round++) {
    const heap = new Heap((a, b) => a.key < b.key);
    const all = new Set();
    for (let i = 0; i < 200; i++) {
      if (all.size > 0 && dice(3) === 0) {
        const gone = [...all][dice(all.size)];
        heap.remove(gone);
        heap.remove(gone); // is not in it any more
        all.delete(gone);
      } else {
        const item = { key: dice(50), place: -1 };
        heap.push(item);
        all.add(item);
      }
      assert.equal(heap.first?.key, all.size === 0 ? undefined : Math.min(...[...all].map((x) => x.key)), `seed ${shown}`);
      assert.equal(heap.size, all.size);
    }
  }
});

test("SEC-39: tokens take the memory that is stated", { skip: globalThis.gc ? false : "needs node --expose-gc" }, async (t) => {
  const count = 4096;
  const l = await Local.open({ cacheTokens: count });
  const used = async () => {
    for (let i = 0; i < 4; i++) {
      globalThis.gc();
      await new Promise((go) => setImmediate(go));
    }
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    return heapUsed + external + arrayBuffers;
  };
  await l.v.check(await mint());
  const before = await used();
  let last, kept;
  for (let i = 0; i < count; i++) {
    // As it comes: a part of a long header.
    const header = `Bearer ${await mint({ sid: `4fzyo82mvyr9z0KfJ2W8Q${i}`, jti: `J${i}`, sub: `user-${i}`, roles: ["admin", "editor"], scope: "orders:read orders:write", amr: ["pwd"], plan: "gold" })}${" ".repeat(4000)}`;
    last = header.slice(7).trimEnd();
    kept = await l.v.check(last);
  }
  const each = ((await used()) - before) / count;
  assert.equal(await l.v.check(last), kept); // so that nothing was let go of before
  const books = new WarmTable(10);
  books.insert(last, { claims: kept, key: { kid: "k1" }, from: 0, until: 1, stamp: 0 }, 0);
  t.diagnostic(`${each.toFixed(0)} bytes a token, counted as ${books.used}`);
  assert(each < books.used && books.used < tokenBudget, `${each.toFixed(0)} bytes a token, counted as ${books.used}`);
});

test("SEC-121: what was revoked before is never accepted, whatever comes and goes", async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  let state = seed;
  const dice = (n) => (state = (state * 48271) % 2147483647) % n;
  const l = await Local.open({ cacheTokens: 20 });
  const tokens = await Promise.all(Array.from({ length: 60 }, async (_, i) => ({ text: await mint({ sid: `s${i}`, sub: `u${i % 15}`, jti: `j${i}`, exp: start + 60 + i }), sid: `s${i}`, sub: `u${i % 15}` })));
  const dead = new Set();
  const under = [];
  for (let i = 0; i < 1500; i++) {
    const one = tokens[dice(tokens.length)];
    if (dice(25) === 0) {
      if (dice(2) === 0) {
        l.apply(["s", one.sid, 0]);
        dead.add(one);
      } else {
        l.apply(["u", one.sub, 8, dice(2) * 8, 0]);
        for (const other of tokens) if (other.sub === one.sub) dead.add(other);
      }
      if (dice(3) === 0) await l.publish(await jwk("a"));
    }
    const was = dead.has(one);
    under.push(code(l.v.check(one.text)).then((got) => assert(!was || got !== "", `seed ${seed}: a token was accepted after its end`)));
    if (dice(4) === 0) await under.at(-1);
  }
  await Promise.all(under);
  assert(dead.size > 20);
});

test("cacheTokens is a whole number", async () => {
  for (const cacheTokens of [-1, 1.5, 2e6, NaN, "8"]) {
    await assert.rejects(createVerifier({ issuer, audience: "orders", cacheTokens }), (error) => error instanceof ConfigError && error.field === "cacheTokens");
  }
});
