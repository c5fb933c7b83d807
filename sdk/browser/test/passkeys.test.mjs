// The passkey calls, in a browser with and without the JSON methods of WebAuthn Level 3. A real authenticator: the tests
// with Chromium.
import assert from "node:assert/strict";
import { test } from "node:test";
import { addPasskey, autofillSupported, listPasskeys, passkeysSupported, removePasskey, renamePasskey, signInWithPasskey, signUpWithPasskey, stepUpWithPasskey } from "../dist/passkeys.js";

const bytes = (...list) => Uint8Array.from(list).buffer;
const shown = { sid: "s1", subject: "u1", client_id: "default" };

/** A session that answers by path, and keeps what it was asked. */
function fake(answers) {
  const calls = [];
  return {
    calls,
    async call(method, path, body) {
      calls.push([method, path, body]);
      const answer = answers[`${method} ${path}`];
      if (answer instanceof Error) throw answer;
      return answer;
    },
    async stepUp(proof) {
      calls.push(["stepUp", proof]);
      return shown;
    },
  };
}

/** Puts an authenticator in place of the browser's. */
function authenticator(t, { native, credential, get, conditional = true }) {
  const seen = [];
  const make = (kind) => async (options) => {
    seen.push([kind, options]);
    return get ? get(options) : credential;
  };
  class PublicKeyCredential {
    static isConditionalMediationAvailable = async () => conditional;
  }
  if (native) {
    PublicKeyCredential.parseRequestOptionsFromJSON = (json) => ({ parsed: json });
    PublicKeyCredential.parseCreationOptionsFromJSON = (json) => ({ parsed: json });
  }
  for (const [name, value] of Object.entries({ PublicKeyCredential, navigator: { credentials: { get: make("get"), create: make("create") } } })) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  return seen;
}

/** A credential as old browsers have it: members are getters of a prototype, and no toJSON. */
function old(response) {
  class Response {}
  for (const [name, value] of Object.entries(response)) Object.defineProperty(Response.prototype, name, { get: () => value });
  return { id: "-_8", rawId: bytes(0xfb, 0xff), type: "public-key", authenticatorAttachment: "platform", getClientExtensionResults: () => ({ credProps: { rk: true } }), response: new Response() };
}

test("the browser's own JSON methods are used where it has them", async (t) => {
  const seen = authenticator(t, { native: true, credential: { toJSON: () => ({ id: "x" }) } });
  const session = fake({ "POST /passkeys/sign-in/begin": { publicKey: { challenge: "AAEC" } }, "POST /passkeys/sign-in": { session: shown } });
  assert.deepEqual(await signInWithPasskey(session, { clientId: "app" }), { sid: "s1", subject: "u1", clientId: "default" });
  assert.deepEqual(seen[0][1].publicKey, { parsed: { challenge: "AAEC" } });
  assert.equal(seen[0][1].mediation, undefined);
  assert.deepEqual(session.calls.at(-1), ["POST", "/passkeys/sign-in", { credential: { id: "x" }, client_id: "app" }]);
});

test("without them: options and credentials by hand, signing in", async (t) => {
  const seen = authenticator(t, { credential: old({ clientDataJSON: bytes(1), authenticatorData: bytes(2), signature: bytes(3, 0xff), userHandle: null }) });
  const session = fake({ "POST /step-up/begin": { publicKey: { challenge: "-_8", rpId: "app.example", allowCredentials: [{ type: "public-key", id: "AAE" }] }, password: true } });
  assert.equal(await stepUpWithPasskey(session), shown);
  const { publicKey } = seen[0][1];
  assert.deepEqual([...publicKey.challenge], [0xfb, 0xff]);
  assert.deepEqual([...publicKey.allowCredentials[0].id], [0, 1]);
  assert.equal(publicKey.rpId, "app.example");
  assert.deepEqual(session.calls.at(-1), [
    "stepUp",
    { credential: { id: "-_8", rawId: "-_8", type: "public-key", authenticatorAttachment: "platform", clientExtensionResults: { credProps: { rk: true } }, response: { clientDataJSON: "AQ", authenticatorData: "Ag", signature: "A_8" } } },
  ]);
});

test("without them: adding a passkey", async (t) => {
  const response = { clientDataJSON: bytes(1), attestationObject: bytes(9), getTransports: () => ["internal"], getAuthenticatorData: () => bytes(2), getPublicKeyAlgorithm: () => -7, getPublicKey: () => bytes(4) };
  const seen = authenticator(t, { credential: old(response) });
  const options = { challenge: "AA", user: { id: "AQI", name: "ada", displayName: "Ada" }, excludeCredentials: [{ type: "public-key", id: "Aw" }], rp: { name: "x" }, pubKeyCredParams: [] };
  const session = fake({ "POST /passkeys/begin": { publicKey: options }, "POST /passkeys": { passkey: { id: "p1", created_at: 1, backed_up: true } } });
  assert.deepEqual(await addPasskey(session, { name: "phone" }), { id: "p1", createdAt: 1, backedUp: true });
  const { publicKey } = seen[0][1];
  assert.deepEqual([...publicKey.user.id], [1, 2]);
  assert.equal(publicKey.user.name, "ada");
  assert.deepEqual([...publicKey.excludeCredentials[0].id], [3]);
  const [, , body] = session.calls.at(-1);
  assert.equal(body.name, "phone");
  assert.deepEqual(body.credential.response, { clientDataJSON: "AQ", attestationObject: "CQ", transports: ["internal"], authenticatorData: "Ag", publicKeyAlgorithm: -7, publicKey: "BA" });
});

test("signing up, listing, renaming, removing", async (t) => {
  authenticator(t, { native: true, credential: { toJSON: () => ({ id: "x" }) } });
  const session = fake({
    "POST /passkeys/sign-up/begin": { publicKey: {} },
    "POST /passkeys/sign-up": { session: shown },
    "GET /passkeys": { passkeys: [{ id: "a/b", name: "phone", created_at: 1, last_used_at: 2, backed_up: false }] },
  });
  assert.equal((await signUpWithPasskey(session, { email: "ada@example.com" })).sid, "s1");
  assert.deepEqual(session.calls[0], ["POST", "/passkeys/sign-up/begin", { email: "ada@example.com" }]);
  assert.deepEqual(await listPasskeys(session), [{ id: "a/b", name: "phone", createdAt: 1, lastUsedAt: 2, backedUp: false }]);
  await renamePasskey(session, "a/b", "desk");
  await removePasskey(session, "a/b");
  assert.deepEqual(session.calls.slice(-2), [["PATCH", "/passkeys/a%2Fb", { name: "desk" }], ["DELETE", "/passkeys/a%2Fb", undefined]]);
});

test("no passkey to step up with", async (t) => {
  const seen = authenticator(t, { native: true });
  assert.equal(await stepUpWithPasskey(fake({ "POST /step-up/begin": { publicKey: null, password: true } })), undefined);
  assert.equal(seen.length, 0);
});

/** Waits as the browser's autofill does, until it is aborted. */
const pending = ({ signal }) =>
  new Promise((_, fail) => {
    if (signal.aborted) fail(signal.reason);
    signal.addEventListener("abort", () => fail(signal.reason));
  });

test("an autofill offer takes a new challenge before the old one dies, and gives way to a button", async (t) => {
  const timers = new Set();
  const { setTimeout, clearTimeout } = globalThis;
  globalThis.setTimeout = (call, ms) => (timers.add(call), assert.equal(ms, 240_000), call);
  globalThis.clearTimeout = (call) => timers.delete(call);
  t.after(() => Object.assign(globalThis, { setTimeout, clearTimeout }));
  const seen = authenticator(t, { native: true, get: (options) => (options.mediation === "conditional" ? pending(options) : { toJSON: () => ({ id: "x" }) }) });
  const session = fake({ "POST /passkeys/sign-in/begin": { publicKey: {} }, "POST /passkeys/sign-in": { session: shown } });
  const offer = signInWithPasskey(session, { autofill: true });
  const turn = () => new Promise((go) => setImmediate(go));
  await turn();
  assert.equal(seen.length, 1);
  for (const call of timers) call();
  await turn();
  assert.equal(seen.length, 2);
  const lost = assert.rejects(offer, { name: "AbortError" });
  assert.equal((await signInWithPasskey(session)).sid, "s1");
  await lost;
  await turn();
  assert.equal(timers.size, 0);
  assert.equal(seen.length, 3);
});

test("what the user declines is the browser's error", async (t) => {
  authenticator(t, { native: true, get: () => Promise.reject(new DOMException("no", "NotAllowedError")) });
  await assert.rejects(signInWithPasskey(fake({ "POST /passkeys/sign-in/begin": { publicKey: {} } })), { name: "NotAllowedError" });
});

test("what the caller aborts is, too", async (t) => {
  authenticator(t, { native: true, get: pending });
  const session = fake({ "POST /passkeys/sign-in/begin": { publicKey: {} } });
  const abort = new AbortController();
  const offer = signInWithPasskey(session, { autofill: true, signal: abort.signal });
  setImmediate(() => abort.abort());
  await assert.rejects(offer, { name: "AbortError" });
  await assert.rejects(signInWithPasskey(session, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("browsers without passkeys say so", async (t) => {
  assert.equal(passkeysSupported(), false);
  assert.equal(await autofillSupported(), false);
  authenticator(t, { conditional: false });
  assert.equal(passkeysSupported(), true);
  assert.equal(await autofillSupported(), false);
});
