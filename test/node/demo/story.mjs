// The demo's whole story, as a person would try it. The first argument is the
// page's address. Token lifetime is expected to be 30 s.

import assert from "node:assert/strict";
import { launch, look, open } from "./browser.mjs";

const url = process.argv[2];
const began = Date.now();
const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);

// textOf waits until an element's text matches.
async function textOf(page, selector, pattern, timeout = 15000) {
  try {
    await page.waitForFunction(([s, source]) => new RegExp(source).test(document.querySelector(s)?.textContent ?? ""), [selector, pattern.source], { timeout });
  } catch {
    assert.match(await page.locator(selector).first().textContent(), pattern, selector);
  }
  return page.locator(selector).first().textContent();
}

// send presses one of a device's buttons and returns what it came to.
async function send(page, device, route) {
  const outcome = page.locator(`${device} [data-t=outcome]`);
  const button = page.locator(`${device} [data-call=${route}]`);
  await outcome.evaluate((e) => e.replaceChildren());
  await button.click();
  await page.waitForFunction((s) => document.querySelector(s).textContent !== "", `${device} [data-t=outcome]`);
  await page.waitForFunction((s) => !document.querySelector(s).hasAttribute("aria-busy"), `${device} [data-call=${route}]`);
  return outcome.textContent();
}

// renew refreshes by hand, so that no refresh is due in the next moments.
async function renew(page, device) {
  // One that was due anyway may come in between, and stand above it in the log.
  const byHand = (than) => {
    const n = [...document.querySelectorAll("#log li")].filter((li) => /\/v1\/auth\/refresh.*by hand.*200/.test(li.textContent)).length;
    return than === undefined ? n : n > than;
  };
  const before = await page.evaluate(byHand);
  await page.click(`${device} [data-do=refresh]`);
  await page.waitForFunction(byHand, before, { timeout: 15000 });
  await textOf(page, mark(device, "token"), /^valid$/);
}

const lines = (page) => page.locator("#log li").allTextContents();
const mark = (device, half) => `${device} [data-t=${half}-mark]`;

// keepsTokens: no token is where another script, or the next user, finds it (SEC-104).
async function keepsTokens({ page, secrets, context }) {
  assert.ok(secrets.size > 0, "no token was seen on the wire");
  const session = (await context.cookies()).find((c) => c.name === "__Host-counterfoil");
  if (session) {
    assert.ok(session.httpOnly && session.secure && session.sameSite === "Lax", "the session cookie's attributes");
    secrets.add(session.value);
  }
  const places = await page.evaluate(() => JSON.stringify([
    document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state, name,
    [...document.querySelectorAll("input")].map((i) => i.value),
    Object.entries(globalThis).filter(([, v]) => typeof v === "string"),
  ]));
  for (const secret of secrets) {
    for (const part of [secret, secret.split(".").at(-1)]) assert.ok(!places.includes(part), `SEC-104: a token is in the page: ${part.slice(0, 12)}…`);
  }
  assert.equal(await page.evaluate(async () => (await indexedDB.databases()).length + (await caches.keys()).length), 0, "SEC-104: something is stored");
}

async function main(browser) {
  const own = await open(browser, url);
  const { page } = own;
  const [here, phone] = ["#browser", "#phone"];

  await textOf(page, "#orders-where", /process \d+/);
  assert.ok(await page.locator(".signin").isVisible());
  await look(page, "1-signed-out");

  await page.fill("[name=password]", "something else entirely");
  await page.click("[value=sign-in]");
  await textOf(page, ".fault", /not right/);
  await page.fill("[name=password]", "paper boats on a green river");
  await page.click("[value=sign-in]");
  await textOf(page, mark(here, "session"), /^active$/);
  await textOf(page, mark(here, "token"), /^valid$/);
  const sid = await textOf(page, `${here} [data-t=sid]`, /^[0-9A-Za-z]{24}$/);
  assert.equal(await page.locator(`${here} [data-t=token-sid]`).textContent(), sid, "both halves carry one number");
  const counted = await textOf(page, `${here} [data-t=expires]`, /^expires in \d+ s$/);
  await page.waitForFunction(([s, before]) => document.querySelector(s).textContent !== before, [`${here} [data-t=expires]`, counted]);
  say("signed in; the token counts down");

  assert.match(await send(page, here, "orders"), /^GET \/orders: 200verified locally, 0 calls to the authority, \d/);
  assert.match(await send(page, here, "payments"), /^POST \/payments: 201asked the authority, 1 call, \d/);
  assert.match(await send(page, here, "report"), /403the role admin is missing: verified locally/);
  await textOf(page, "#feed-mark", /^followed$/);
  assert.match(await send(page, here, "balance"), /^GET \/balance: 200verified locally, 0 calls/);
  await look(page, "2-signed-in");
  say("called: local, asked, refused");

  await page.reload();
  await textOf(page, mark(here, "token"), /^valid$/);
  assert.equal(await page.locator(`${here} [data-t=sid]`).textContent(), sid, "the session outlives the page");

  await page.click("#open-phone");
  await textOf(page, mark(phone, "session"), /^active$/);
  await textOf(page, `${phone} [data-t=device]`, /Safari on iPhone/);
  assert.match(await send(page, phone, "payments"), /201/);
  await page.reload();
  await textOf(page, mark(phone, "token"), /^valid$/);
  await look(page, "3-two-devices");

  await renew(page, here);
  await page.click("#role");
  await textOf(page, "#role-now", /has given/);
  await textOf(page, mark(here, "token"), /stale/);
  await textOf(page, "#log li", /orders hears.*the token is stale.*by the feed, [\d.]+ [mµ]?s after/);
  assert.match(await send(page, here, "report"), /^GET \/report: 200verified locally/);
  await textOf(page, `${here} [data-t=roles]`, /^admin$/);
  let log = await lines(page);
  assert.ok(log.some((l) => /\/report.*401.*token is stale.*unseen by the user/.test(l)), "the refusal that brought the refresh is told");
  await page.click("#role");
  await textOf(page, "#role-now", /has not given/);
  await textOf(page, "#log li", /orders hears/);
  assert.match(await send(page, here, "report"), /403/);
  say("role given and taken, each at once");

  await renew(page, phone); // its token is stale since the role changed
  await page.click("#sign-out-others");
  await textOf(page, mark(phone, "session"), /^revoked$/);
  await textOf(page, `${phone} [data-t=why]`, /signed out from another device/);
  say(await textOf(page, `${phone} [data-t=why]`, /Orders heard of it after [\d.]+ [mµ]?s/));
  assert.match(await send(page, phone, "orders"), /401the token is revoked: verified locally, 0 calls/);
  assert.match(await send(page, phone, "payments"), /401the token is revoked/);
  await textOf(page, mark(phone, "token"), /^revoked$/);
  log = await lines(page);
  assert.ok(log.some((l) => /\/refresh.*401.*the session has ended/.test(l)), "the refused refresh is told");
  assert.ok(log.some((l) => /orders hears.*Second device.*the token is revoked.*by the feed, [\d.]+ [mµ]?s/.test(l)), "what the feed took is told");
  await textOf(page, mark(here, "session"), /^active$/);
  assert.match(await send(page, here, "payments"), /201/);
  await look(page, "4-others-signed-out");
  await keepsTokens(own);
  say("the second device is out, this one is not");

  await page.click("#feed");
  await textOf(page, "#feed-mark", /^cut$/);
  await page.click(`${phone} [data-do=again]`);
  await textOf(page, mark(phone, "session"), /^active$/);
  await renew(page, here);
  await page.click("#sign-out-others");
  await textOf(page, `${phone} [data-t=why]`, /Orders has not heard of it/);
  assert.match(await send(page, phone, "orders"), /200verified locally/);
  await textOf(page, "#feed-age", /^([2-9]|\d\d)\.\d s$/);
  assert.match(await send(page, here, "balance"), /200asked the authority, 1 call/);
  assert.match(await send(page, phone, "balance"), /401the token is revoked: asked the authority, 1 call/);
  await look(page, "5-feed-cut");
  await page.click("#feed");
  await textOf(page, "#feed-mark", /^followed$/, 30000);
  await textOf(page, `${phone} [data-t=why]`, /Orders heard of it after/);
  assert.match(await send(page, phone, "orders"), /401/);
  assert.match(await send(page, here, "balance"), /200verified locally/);
  say("the feed was cut: it aged, balance asked; restored, orders heard the rest");

  // Another browser, with a user of its own and a name that is markup.
  const hostile = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>';
  const other = await open(browser, url, { userAgent: hostile, width: 390 });
  await textOf(other.page, "#orders-where", /process \d+/);
  await other.page.clock.install();
  await other.page.reload();
  await other.page.fill("[name=email]", "o'hara&sons@example.com");
  await other.page.fill("[name=password]", "short");
  await other.page.click("[value=sign-up]");
  await textOf(other.page, ".fault", /15/);
  await other.page.fill("[name=password]", "a long one of my own making");
  await other.page.click("[value=sign-up]");
  await textOf(other.page, mark(here, "session"), /^active$/);
  await textOf(other.page, `${here} [data-t=device]`, /onerror/);
  assert.equal(await other.page.evaluate(() => document.images.length + document.querySelectorAll("body script").length + (window.broken ?? 0)), 0, "SEC-104: a name became markup");
  await other.page.clock.fastForward(25000);
  await textOf(other.page, "#log li", /\/v1\/auth\/refresh.*in time.*200/);
  await keepsTokens(other);
  assert.deepEqual(other.faults, []);
  await other.context.close();
  say("signed up; refreshed by itself in time");

  await renew(page, here);
  await page.click("#authority");
  await textOf(page, "#authority-mark", /^stopped$/);
  assert.match(await send(page, here, "orders"), /200verified locally, 0 calls/);
  assert.match(await send(page, here, "payments"), /503the authority does not answer/);
  await textOf(page, "#feed-mark", /^cut off$/);
  await textOf(page, "#feed-age", /^([2-9]|\d\d)\.\d s$/);
  assert.match(await send(page, here, "balance"), /503the authority does not answer/);
  await page.click(`${here} [data-do=sign-out]`);
  await textOf(page, "#log li", /sign-out.*503.*Nothing has changed/);
  // By itself, when the next refresh is due.
  await textOf(page, `${here} [data-t=why]`, /Still signed in/, 30000);
  assert.match(await send(page, here, "orders"), /200verified locally, 0 calls/);
  await look(page, "6-authority-stopped");
  say("the authority is down: verification goes on");
  await textOf(page, mark(here, "token"), /^expired/, 35000);
  // The verifier allows five seconds more: call until it has had enough.
  const end = Date.now() + 20000;
  while (!/401the token has expired/.test(await send(page, here, "orders"))) {
    assert.ok(Date.now() < end, "the token outlives its expiry");
    const shown = await page.locator(`${here} [data-t=expires]`).textContent();
    await page.waitForFunction(([s, before]) => document.querySelector(s).textContent !== before, [`${here} [data-t=expires]`, shown]);
  }
  await textOf(page, mark(here, "session"), /^active, as last told$/);
  say("the token has expired; nobody is signed out");

  await page.click("#authority");
  await textOf(page, "#authority-mark", /^running$/);
  await textOf(page, mark(here, "token"), /^valid$/);
  assert.equal(await page.locator(`${here} [data-t=sid]`).textContent(), sid);
  assert.match(await send(page, here, "orders"), /200/);
  assert.match(await send(page, here, "payments"), /201/);
  await textOf(page, "#feed-mark", /^followed$/, 60000);
  say("the authority is back: recovered by itself");

  await page.click(`${phone} [data-do=again]`);
  await textOf(page, mark(phone, "session"), /^active$/);
  await page.click("#sign-out-all");
  await textOf(page, mark(here, "session"), /^revoked$/);
  await textOf(page, mark(phone, "session"), /^revoked$/);
  await textOf(page, `${here} [data-t=why]`, /Orders heard of it after/);
  assert.match(await send(page, here, "orders"), /401/);
  assert.match(await send(page, here, "payments"), /401/);
  assert.equal((await own.context.cookies()).length, 0, "the cookie is cleared");
  await look(page, "7-ended");
  await keepsTokens(own);

  await page.click(`${here} [data-do=again]`);
  await page.keyboard.press("Enter"); // the form has the focus
  await textOf(page, mark(here, "session"), /^active$/);
  assert.notEqual(await page.locator(`${here} [data-t=sid]`).textContent(), sid);
  assert.equal(await page.locator(".steps [data-done]").count(), 7, "each step was done");
  await page.click(`${here} [data-do=sign-out]`);
  await textOf(page, `${here} [data-t=why]`, /signed out on this device/);
  await page.reload();
  await page.waitForSelector(".signin");
  assert.deepEqual(own.faults, []);
  say("signed out everywhere, and in again");
}

const browser = await launch();
try {
  await main(browser);
} finally {
  await browser.close();
}
