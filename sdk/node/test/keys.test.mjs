import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError, createVerifier } from "@counterfoil/node";
import { Authority, code, following, issuer, quiet, until } from "./helper.mjs";

const jwks = "/.well-known/jwks.json";
const local = { apiKey: undefined };

test("a known kid causes no I/O", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a, local);
  assert.equal(v.ready, true);
  assert.equal(v.feed, undefined);
  for (let i = 0; i < 20; i++) assert.equal(await code(v.check(await a.token())), "");
  assert.equal(a.asked[jwks], 1);
  a.stop();
  assert.equal(await code(v.check(await a.token())), "");
});

test("an unknown kid: one fetch for all, then none for a while", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a, local);
  await a.addKey("k2");
  a.set.cf_version++;
  const fresh = await Promise.all(Array.from({ length: 10 }, () => a.token({}, "k2")));
  assert.deepEqual(new Set(await Promise.all(fresh.map((token) => code(v.check(token))))), new Set([""]));
  assert.equal(a.asked[jwks], 2);
  await a.addKey("k3");
  const made = await Promise.all([code(v.check(await a.token({}, "k3"))), code(v.check(await a.token({}, "k3")))]);
  assert.deepEqual(made, ["token_invalid", "token_invalid"]);
  assert.equal(a.asked[jwks], 2, "asked again within the cooldown");
});

test("another issuer's authority", async (t) => {
  const a = await Authority.start(t);
  for (const other of [`${issuer}/`, "https://other.example"]) {
    a.documents["/.well-known/oauth-authorization-server"] = () => ({ issuer: other });
    await assert.rejects(following(t, a, local), (error) => error instanceof ConfigError && error.field === "issuer");
  }
  assert.equal(a.asked[jwks], undefined, "keys were fetched all the same");
});

test("a verifier starts while the authority is down", async (t) => {
  const a = await Authority.start(t);
  const documents = a.documents;
  a.documents = {};
  const v = await following(t, a, { ...local, signal: AbortSignal.timeout(50) });
  assert.equal(v.ready, false);
  assert.equal(await code(v.check(await a.token())), "unavailable");
  assert.equal(await code(v.check(await a.token({ iss: "https://other.example" }))), "token_invalid");
  a.documents = documents;
  await v.wait();
  assert.equal(await code(v.check(await a.token())), "");
});

test("key sets that are not taken", async (t) => {
  const a = await Authority.start(t);
  const said = [];
  const v = await following(t, a, { logger: { warn: (m) => said.push(m), error: (m) => said.push(m) } });
  const old = a.set;
  let told = 100;
  const token = await a.token();
  await a.addKey("k2");
  const tell = async (version, set, why) => {
    a.set = { ...set, cf_version: version };
    told++; // makes it ask
    await until("a set that is refused", () => said.splice(0).some((m) => m.includes(why)) || (a.send(a.beat({ keys: told })), false));
  };
  await tell(4, { keys: a.set.keys.slice(1) }, "version 4, after 5");
  assert.equal(await code(v.check(token)), "", "went back to an older version");
  await tell(6, { keys: [] }, "no key of use");
  assert.equal(await code(v.check(token)), "", "took a set without a key");
  await tell(6, { keys: [{ ...old.keys[0], d: "AA" }] }, "private");
  assert.equal(await code(v.check(token)), "", "took a set with a private key");
});

test("a kid that is unknown while the feed speaks of newer keys", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const made = await a.addKey("k2").then(() => a.token({}, "k2"));
  a.set = { cf_version: 5, keys: a.set.keys.slice(0, 1) };
  assert.equal(await code(v.check(made)), "token_invalid"); // and now there is a cooldown
  await a.addKey("k3");
  const documents = a.documents;
  a.documents = {};
  a.send(a.beat({ keys: 6 }));
  await until("the news", async () => (await code(v.check(await a.token({}, "k3")))) === "unavailable");
  a.documents = documents;
  a.set.cf_version = 6;
  const beats = setInterval(() => a.send(a.beat()), 20);
  t.after(() => clearInterval(beats));
  await until("the new key", async () => (await code(v.check(await a.token({}, "k3")))) === "");
});

test("a key set replaces the one before", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  const before = await a.token();
  await a.addKey("k2");
  a.set = { cf_version: 6, keys: a.set.keys.slice(1) };
  a.send(a.beat());
  await until("the new key", async () => (await code(v.check(await a.token({}, "k2")))) === "");
  assert.equal(await code(v.check(before)), "token_invalid", "the old key is still taken");
});

test("a revoked key stays revoked, whatever a key set says", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a);
  await a.addKey("k2");
  const token = await a.token();
  assert.equal(await code(v.check(token)), "");
  a.set.cf_version = 6; // k1 is still in it
  a.send(a.frame("live", [["k", "k1", 1]], "1.2") + a.beat());
  await until("the new set", async () => (await code(v.check(await a.token({}, "k2")))) === "");
  assert.equal(await code(v.check(token)), "token_invalid");
});

test("options that cannot be used", async () => {
  const good = { issuer, audience: "orders", logger: quiet };
  for (const [field, options] of [
    ["issuer", { ...good, issuer: "" }],
    ["issuer", { ...good, issuer: "app.example" }],
    ["issuer", { ...good, issuer: "ftp://app.example" }],
    ["audience", { ...good, audience: undefined }],
    ["audience", { ...good, audience: "" }],
    ["acceptAnyAudience", { ...good, acceptAnyAudience: true }],
    ["authority", { ...good, authority: "http://u:p@app.example" }],
    ["authority", { ...good, authority: "http://app.example?x" }],
    ["apiKey", { ...good, apiKey: "" }],
    ["apiKey", { ...good, apiKey: "a\nb" }],
    ["algorithms", { ...good, algorithms: [] }],
    ["algorithms", { ...good, algorithms: ["HS256"] }],
    ["liveTimeout", { ...good, liveTimeout: 0 }],
    ["maxKeyAge", { ...good, maxKeyAge: -1 }],
    ["trustedOrigins", { ...good, trustedOrigins: ["app.example"] }],
    ["trustedOrigins", { ...good, trustedOrigins: ["https://app.example/"] }],
    ["apikey", { ...good, apikey: "cf_sk_x" }],
  ]) {
    await assert.rejects(createVerifier(options), (error) => error instanceof ConfigError && error.field === field && !error.message.includes("u:p"), field);
  }
});

test("rules that cannot be kept", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a, local);
  const live = await following(t, a, { withoutFeed: true });
  for (const [field, rules, verifier] of [
    ["live", { live: true }],
    ["maxFeedAge", { maxFeedAge: 1 }],
    ["maxTokenAge", { maxTokenAge: 0 }],
    ["maxAuthAge", { maxAuthAge: NaN }],
    ["maxAuthAge", { maxAuthAge: "10" }],
    ["scope", { scope: "a b" }],
    ["scope", { scope: [] }],
    ["role", { role: "" }],
    ["roles", { roles: ["admin"] }],
    ["live", { live: "yes" }],
  ]) {
    assert.throws(() => (verifier ?? v).requestChecker(rules), (error) => error instanceof ConfigError && error.field === field, field);
    await assert.rejects((verifier ?? v).check("x", rules), ConfigError);
  }
  live.requestChecker({ live: true });
  assert.equal(await code(live.check(await a.token(), { maxFeedAge: 1 })), "");
  assert.equal(a.asked["/oauth2/introspect"], 1, "a feed that is not followed counts as old");
});
