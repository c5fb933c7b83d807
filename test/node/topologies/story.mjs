// The topologies in a real Chromium: pages at app.example.test whose authority
// is behind their own host, or at auth.example.test; pages of the same site
// that nobody named, and of another one. The arguments are the address of the
// device API as the pages know it, the port of all hosts, and the hash of the
// server's key, which the browser is to trust.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { request } from "node:https";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [api, port, key] = process.argv.slice(2);
const need = createRequire(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const { chromium } = need("playwright-core");
const site = (host) => `https://${host}:${port}`;
const authority = new URL(api).origin;
const cookieName = "__Host-counterfoil";
const account = { email: "ann@example.org", password: "turbine ladder quietly orchid" };

const profile = await mkdtemp(join(tmpdir(), "counterfoil-topologies-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.COUNTERFOIL_TEST_CHROMIUM,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    `--ignore-certificate-errors-spki-list=${key}`,
    "--host-resolver-rules=MAP *.test 127.0.0.1",
  ],
});
context.setDefaultTimeout(15000);

// call has a page call the authority as a page may. What it cannot read is
// { unreadable: true }.
const call = (page, method, path, body, headers = {}) =>
  page.evaluate(async ([url, method, body, headers]) => {
    if (body) headers["Content-Type"] = "application/json";
    let r;
    try {
      r = await fetch(url, { method, headers, body: body && JSON.stringify(body), credentials: "include" });
    } catch {
      return { unreadable: true };
    }
    const text = await r.text();
    return { http: r.status, challenge: r.headers.get("WWW-Authenticate"), ...(text ? JSON.parse(text) : {}) };
  }, [api + path, method, body, headers]);

// native is a client that is no browser and keeps its session token itself.
function native(path, body, token) {
  const url = new URL(api + path);
  return new Promise((resolve, reject) => {
    const r = request({
      host: "127.0.0.1", port, path: url.pathname, method: "POST", rejectUnauthorized: false,
      headers: { Host: url.host, "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    }, (res) => {
      let text = "";
      res.on("data", (chunk) => { text += chunk; });
      res.on("end", () => resolve({ http: res.statusCode, setCookie: res.headers["set-cookie"], ...(text ? JSON.parse(text) : {}) }));
    });
    r.on("error", reject);
    r.end(JSON.stringify(body));
  });
}

// watch has a page hold the stream of its session; told() is what it heard.
async function watch(page) {
  await page.evaluate((url) => {
    globalThis.heard = [];
    const source = new EventSource(url, { withCredentials: true });
    for (const name of ["hello", "stale", "ended"]) {
      source.addEventListener(name, (e) => {
        heard.push({ name, at: Date.now(), ...JSON.parse(e.data) });
        if (name === "ended") source.close();
      });
    }
    source.addEventListener("error", () => heard.push({ name: "error" }));
  }, api + "/session/watch");
  return async (name) => {
    await page.waitForFunction((name) => heard.some((e) => e.name === name), name);
    return page.evaluate((name) => heard.find((e) => e.name === name), name);
  };
}

const sessionCookie = async () => (await context.cookies(authority)).filter((c) => c.name === cookieName);

async function open(url) {
  const page = await context.newPage();
  await page.goto(url);
  return page;
}

const began = Date.now();
const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);

try {
  const page = await open(site("app.example.test"));

  // Sign-up, refresh, reload: the cookie is the authority's host's alone, and no script sees it.
  const up = await call(page, "POST", "/sign-up", account);
  assert.equal(up.http, 201);
  assert.equal(up.session_token, undefined);
  const [cookie] = await sessionCookie();
  assert.ok(cookie, "no session cookie was kept");
  assert.deepEqual([cookie.domain, cookie.path, cookie.secure, cookie.httpOnly, cookie.sameSite], [new URL(api).hostname, "/", true, true, "Lax"]);
  assert.equal(await page.evaluate(() => document.cookie), "");
  const first = await call(page, "POST", "/refresh");
  assert.equal(first.http, 200);
  await page.reload();
  const again = await call(page, "POST", "/refresh", { active: false });
  assert.equal(again.session.sid, up.session.sid);

  // The application's own server takes the access token.
  const mine = await page.evaluate(async (token) => {
    const r = await fetch("/me", { headers: { Authorization: `Bearer ${token}` } });
    return [r.status, await r.text()];
  }, again.access_token);
  assert.deepEqual(mine, [200, up.session.subject]);

  // What a page has to know of a refusal it can read.
  const wrong = await call(page, "POST", "/step-up", { password: "another word entirely" });
  assert.deepEqual([wrong.http, wrong.code], [401, "invalid_credentials"]);
  assert.ok(wrong.challenge, "the challenge is kept from the page");
  assert.equal((await call(page, "GET", "/sessions")).sessions.length, 1);

  say("the application's page is served");

  // Pages that nobody named: of the same site, where the browser sends the
  // cookie along, and of another one.
  for (const host of ["sister.example.test", "evil.test", "app.example.test.evil.test"]) {
    const stranger = await open(site(host));
    for (const [method, path, body] of [["POST", "/refresh"], ["POST", "/sign-out", { which: "all" }], ["GET", "/session"], ["GET", "/sessions"], ["GET", "/session/watch"], ["POST", "/sign-in", account]]) {
      assert.deepEqual(await call(stranger, method, path, body), { unreadable: true }, `${host} reads ${method} ${path}`);
    }
    // Requests that need no preflight, whose answer nobody wants to read.
    await stranger.evaluate(async (url) => {
      for (const [path, body] of [["/sign-out"], ["/sign-out", '{"which":"all"}'], ["/refresh"]]) {
        await fetch(url + path, { method: "POST", mode: "no-cors", credentials: "include", headers: { "Content-Type": "text/plain" }, body }).catch(() => {});
      }
    }, api);
    const told = await watch(stranger);
    await told("error");
    assert.deepEqual(await stranger.evaluate(() => heard.filter((e) => e.name !== "error")), [], `${host} hears of the session`);
    // A form takes the whole window there.
    await Promise.all([
      stranger.waitForURL(`${api}/sign-out`),
      stranger.evaluate((url) => {
        const form = document.createElement("form");
        form.method = "post";
        form.action = `${url}/sign-out`;
        document.body.append(form);
        form.submit();
      }, api),
    ]);
    assert.match(await stranger.evaluate(() => document.body.innerText), /"status":403|invalid_request/);
    await stranger.close();
    say(`${host} gets nothing`);
    assert.equal((await call(page, "POST", "/refresh")).session.sid, up.session.sid, `${host} signed the user out`);
    assert.equal((await sessionCookie()).length, 1);
  }

  // Another device, which keeps its session token itself, ends this session.
  const told = await watch(page);
  assert.equal((await told("hello")).sid, up.session.sid);
  const device = await native("/sign-in", { ...account, transport: "body" });
  assert.equal(device.setCookie, undefined);
  const ended = await native("/sign-out", { sid: up.session.sid }, device.session_token);
  const at = Date.now();
  assert.equal(ended.http, 204);
  const end = await told("ended");
  assert.deepEqual([end.code, end.reason, end.sid], ["session_revoked", "signed_out_everywhere", up.session.sid]);
  assert.ok(end.at - at < 1000, `told after ${end.at - at} ms`);
  say(`the page knew ${end.at - at} ms after the call had returned`);
  const after = await call(page, "POST", "/refresh");
  assert.deepEqual([after.http, after.code, after.reason], [401, "session_revoked", "signed_out_everywhere"]);
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
