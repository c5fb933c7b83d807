// Passkeys in a real Chromium with a virtual authenticator: sign-up, sign-in
// by a button and by autofill, step-up, a second passkey, removal. The argument
// is the address of a page that is served beside the device API at /auth.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const [home] = process.argv.slice(2);
const need = createRequire(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const { chromium } = need("playwright-core");
const began = Date.now();
const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);

// In the page: one call of the device API.
async function api(method, path, body) {
  const r = await fetch("/auth" + path, { method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body) });
  const text = await r.text();
  return { http: r.status, ...(text ? JSON.parse(text) : {}) };
}

// In the page: begin, have the browser do its part, finish.
async function ceremony(kind, begin, finish, from, mediation) {
  const begun = await api("POST", begin, from ?? {});
  if (begun.http !== 200) return begun;
  const publicKey = kind === "create"
    ? PublicKeyCredential.parseCreationOptionsFromJSON(begun.publicKey)
    : PublicKeyCredential.parseRequestOptionsFromJSON(begun.publicKey);
  try {
    const credential = await navigator.credentials[kind]({ publicKey, mediation });
    return await api("POST", finish, { credential });
  } catch (e) {
    return { http: 0, error: e.name };
  }
}

const browser = await chromium.launch({
  executablePath: process.env.COUNTERFOIL_TEST_CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const context = await browser.newContext();
  context.setDefaultTimeout(20000);
  const page = await context.newPage();
  await page.addInitScript(`${api}\n${ceremony}\nglobalThis.api = api; globalThis.ceremony = ceremony;`);
  await page.goto(home);
  const cdp = await context.newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const authenticator = (more) => cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true, ...more },
  }).then((a) => a.authenticatorId);
  const call = (method, path, body) => page.evaluate(([m, p, b]) => globalThis.api(m, p, b), [method, path, body]);
  const run = (...args) => page.evaluate((a) => globalThis.ceremony(...a), args);
  const signIn = (mediation) => run("get", "/passkeys/sign-in/begin", "/passkeys/sign-in", {}, mediation);

  const phone = await authenticator({});
  const up = await run("create", "/passkeys/sign-up/begin", "/passkeys/sign-up", { email: "ann@example.org" });
  assert.equal(up.http, 201, JSON.stringify(up));
  assert.deepEqual(up.session.amr, ["pop", "user", "mfa"]);
  const { credentials: [made] } = await cdp.send("WebAuthn.getCredentials", { authenticatorId: phone });
  assert.equal(made.isResidentCredential, true);
  assert.equal(Buffer.from(made.userHandle, "base64").toString(), up.session.subject);
  const cookies = await context.cookies();
  const ceremonyCookie = cookies.find((c) => c.name === "__Host-counterfoil-ceremony");
  assert.ok(ceremonyCookie?.httpOnly && ceremonyCookie.secure && ceremonyCookie.sameSite === "Strict", JSON.stringify(ceremonyCookie));
  say("signed up");
  assert.equal((await run("create", "/passkeys/sign-up/begin", "/passkeys/sign-up", { email: "ANN@example.org" })).code, "conflict");

  assert.equal((await call("POST", "/sign-out", {})).http, 204);
  assert.equal((await call("GET", "/session")).code, "credential_missing");
  const back = await signIn();
  assert.equal(back.http, 200, JSON.stringify(back));
  assert.equal(back.session.subject, up.session.subject);
  assert.notEqual(back.session.sid, up.session.sid);
  say("signed in");

  await call("POST", "/sign-out", {});
  const filled = await signIn("conditional");
  assert.equal(filled.http, 200, JSON.stringify(filled));
  say("signed in by autofill");

  const stepped = await run("get", "/step-up/begin", "/step-up");
  assert.equal(stepped.http, 200, JSON.stringify(stepped));
  assert.equal(stepped.session.sid, filled.session.sid);
  say("stepped up");

  await cdp.send("WebAuthn.setUserVerified", { authenticatorId: phone, isUserVerified: false });
  assert.equal((await signIn()).error, "NotAllowedError", "without user verification");
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId: phone, isUserVerified: true });
  assert.equal((await run("create", "/passkeys/begin", "/passkeys")).error, "InvalidStateError", "the same authenticator twice");

  const list = (await call("GET", "/passkeys")).passkeys;
  assert.equal(list.length, 1);
  assert.equal((await call("DELETE", "/passkeys/" + list[0].id)).code, "conflict", "the last one");
  await cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId: phone, enabled: false });
  const key = await authenticator({ transport: "usb", defaultBackupEligibility: true, defaultBackupState: true });
  const added = await run("create", "/passkeys/begin", "/passkeys");
  assert.equal(added.http, 201, JSON.stringify(added));
  assert.equal(added.name, "Passkey 2");
  assert.equal(added.backed_up, true);
  assert.equal((await call("PATCH", "/passkeys/" + added.id, { name: "Key" })).name, "Key");
  say("added a second one");

  assert.equal((await call("DELETE", "/passkeys/" + list[0].id)).http, 204);
  assert.deepEqual((await call("GET", "/passkeys")).passkeys.map((p) => p.name), ["Key"]);
  assert.equal((await call("GET", "/session")).sid, filled.session.sid, "this session goes on");
  await cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId: key, enabled: false });
  await cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId: phone, enabled: true });
  await cdp.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId: key });
  const gone = await signIn();
  assert.equal(gone.http, 401, JSON.stringify(gone));
  assert.equal(gone.code, "invalid_credentials");
  say("removed the first one, which signs nobody in any more");
} finally {
  await browser.close();
}
