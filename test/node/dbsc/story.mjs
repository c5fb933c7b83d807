// Device-bound sessions in a real Chromium, which does its part by itself:
// no script of ours registers, renews or signs anything. The arguments are the
// address of the device API, the address of a page, and the hash of the
// server's key, which Chromium has to trust: it binds nothing otherwise.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { request } from "node:https";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [api, home, key] = process.argv.slice(2);
const need = createRequire(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const { chromium } = need("playwright-core");
const began = Date.now();
const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);

const sessionCookie = "__Host-counterfoil";
const boundCookie = "__Host-counterfoil-bound";

// call has the page call the device API.
const call = (page, method, path, body) =>
  page.evaluate(async ([url, method, body]) => {
    const r = await fetch(url, { method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body) });
    const text = await r.text();
    return { http: r.status, ...(text ? JSON.parse(text) : {}) };
  }, [api + path, method, body]);

// plain is a client that has copies of the cookies, and nothing else.
function plain(method, url, headers) {
  return new Promise((resolve, reject) => {
    const r = request(url, { method, headers, rejectUnauthorized: false }, (res) => {
      let text = "";
      res.on("data", (chunk) => { text += chunk; });
      res.on("end", () => resolve({ http: res.statusCode, ...(text.startsWith("{") ? JSON.parse(text) : {}) }));
    });
    r.on("error", reject);
    r.end();
  });
}

// until asks again until the answer is right, or 30 s have passed.
async function until(what, ask, right) {
  const deadline = Date.now() + 30000;
  for (;;) {
    const answer = await ask();
    if (right(answer)) return answer;
    assert.ok(Date.now() < deadline, `${what}: still ${JSON.stringify(answer)}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

const profile = await mkdtemp(join(tmpdir(), "counterfoil-dbsc-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.COUNTERFOIL_TEST_CHROMIUM,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    `--ignore-certificate-errors-spki-list=${key}`,
    "--enable-features=DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting",
  ],
});
try {
  context.setDefaultTimeout(15000);
  const page = context.pages()[0] ?? await context.newPage();
  const cookies = async () => Object.fromEntries((await context.cookies()).map((c) => [c.name, c]));
  const copy = async () => (await context.cookies()).map((c) => `${c.name}=${c.value}`).join("; ");
  const events = [];
  const cdp = await context.newCDPSession(page);
  cdp.on("Network.deviceBoundSessionEventOccurred", (e) => events.push(e));
  await cdp.send("Network.enable");
  await cdp.send("Network.enableDeviceBoundSessions", { enable: true });
  await page.goto(home);

  const up = await call(page, "POST", "/sign-up", { email: "ann@example.org", password: "turbine ladder quietly orchid" });
  assert.equal(up.http, 201, JSON.stringify(up));
  assert.equal(up.session.device.bound, undefined, "bound before any key was registered");
  try {
    await until("the bound cookie", cookies, (c) => c[boundCookie]);
  } catch (e) {
    console.log(JSON.stringify(events));
    throw e;
  }
  const bound = (await cookies())[boundCookie];
  assert.ok(bound.httpOnly && bound.secure && bound.sameSite === "Lax" && bound.path === "/", "the bound cookie's attributes");
  const session = await call(page, "GET", "/session");
  assert.equal(session.device.bound, true);
  say("signed up; the browser registered a key");

  let stolen;
  await until("copied cookies, while the bound one lives", async () => plain("GET", `${api}/session`, { cookie: stolen = await copy() }), (a) => a.http === 200);
  const refused = await until("copied cookies", () => plain("GET", `${api}/session`, { cookie: stolen }), (a) => a.http !== 200);
  assert.equal(refused.code, "proof_required");
  const token = (await cookies())[sessionCookie].value;
  for (const headers of [{ cookie: `${sessionCookie}=${token}` }, { authorization: `Bearer ${token}` }]) {
    const a = await plain("POST", `${api}/refresh`, headers);
    assert.deepEqual([a.http, a.code], [401, "proof_required"], JSON.stringify(headers).slice(0, 20));
  }
  say("copied cookies ended with the bound cookie");

  assert.equal((await call(page, "POST", "/refresh")).http, 200, "the browser carries on");
  say("the browser carries on");

  const tab = await context.newPage();
  await tab.goto(home);
  await until("the end of the bound cookie", cookies, (c) => !c[boundCookie]);
  const all = await Promise.all([page, tab].flatMap((p) => Array.from({ length: 6 }, () => call(p, "POST", "/refresh"))));
  assert.deepEqual(all.map((a) => a.http), Array(12).fill(200));
  say("two tabs, twelve requests at once");

  await until("the end of the bound cookie", cookies, (c) => !c[boundCookie]);
  const shown = await tab.goto(`${home}me`);
  assert.equal(shown.status(), 200, "a page without scripts");
  assert.equal(await tab.textContent("body"), up.session.sid);
  say("a page was held until the cookie was there");

  const before = (await cookies())[sessionCookie].value;
  const step = await call(page, "POST", "/step-up", { password: "turbine ladder quietly orchid" });
  assert.equal(step.http, 200, JSON.stringify(step));
  assert.equal(step.session.device.bound, true, "a step-up leaves the binding");
  assert.notEqual((await cookies())[sessionCookie].value, before);
  await until("the end of the bound cookie", cookies, (c) => !c[boundCookie]);
  assert.equal((await call(page, "GET", "/session")).http, 200);
  say("stepped up");

  const last = await copy();
  const worn = (await cookies())[boundCookie]?.value;
  const [answer, out] = await Promise.all([page.waitForResponse((r) => r.url().endsWith("/sign-out")), call(page, "POST", "/sign-out")]);
  assert.equal(out.http, 204);
  const cleared = (await answer.headersArray()).filter((h) => h.name.toLowerCase() === "set-cookie" && /max-age=0/i.test(h.value)).map((h) => h.value.split("=")[0]);
  assert.ok(cleared.includes(boundCookie) && cleared.includes(sessionCookie), `cleared ${cleared}`);
  // A renewal that was under way may bring another bound cookie back, never the one that was: without its session it is of no use.
  const left = await cookies();
  assert.deepEqual(Object.keys(left).filter((name) => name !== boundCookie || left[name].value === worn), [], "cookies after sign-out");
  assert.equal((await plain("GET", `${api}/session`, { cookie: last })).code, "session_revoked");
  assert.equal((await call(page, "GET", "/session")).code, "credential_missing");
  say("signed out");

  const again = await call(page, "POST", "/sign-in", { email: "ann@example.org", password: "turbine ladder quietly orchid" });
  assert.equal(again.http, 200);
  await until("the bound cookie of the next session", cookies, (c) => c[boundCookie]);
  const next = await call(page, "GET", "/session");
  assert.deepEqual([next.sid, next.device.bound], [again.session.sid, true]);
  say("signed in anew; bound anew");
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
