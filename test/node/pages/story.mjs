// The story of the hosted pages, as people would live it. The arguments are
// the application's address and the same server under another origin.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { launch, look, open } from "../demo/browser.mjs";

const [url, elsewhere] = process.argv.slice(2);
const account = `${url}/account`;
const began = Date.now();
const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);
const axe = await readFile(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "node_modules", "axe-core", "axe.min.js"), "utf8");

const [email, word, other] = ["ada@example.com", "paper boats on a green river", "seven umbrellas of basalt"];
const iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";

// seen checks a page as everybody sees it, and as those who do not see it.
const seenPages = [];
async function seen(page, name) {
  seenPages.push(name);
  await look(page, name);
  await page.evaluate(axe);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    // A change of colours that has begun goes on, and half of one has no contrast.
    await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getComputedTiming().endTime !== Infinity).map((a) => a.finished)));
    const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
    assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`), [], `${name}, ${colorScheme}: axe-core`);
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}

const text = (page) => page.locator("body").innerText();
async function says(page, pattern) {
  await page.waitForFunction((source) => new RegExp(source).test(document.body?.innerText ?? ""), pattern.source).catch(() => {});
  assert.match(await text(page), pattern);
}
const later = (page, minutes) => page.request.post(`${url}/test/later?minutes=${minutes}`);

// A device with a screen lock that can keep passkeys.
async function authenticator(page, present = true) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options: {
    protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: present,
  } });
  return (enabled) => cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId, enabled });
}

async function signIn(page, password = word) {
  await page.goto(`${account}/sign-in`);
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", password);
  await page.click("form.fields button:not([type=button])");
  await page.waitForURL(/\/devices$/);
}

// keepsTokens: nothing that grants anything is where a script could find it (SEC-104).
async function keepsTokens({ page, context }) {
  const held = (await context.cookies()).filter((c) => c.name.startsWith("__Host-counterfoil"));
  for (const c of held) assert.ok(c.httpOnly && c.secure, `${c.name}: attributes`);
  const places = await page.evaluate(() => JSON.stringify([
    document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state, name,
  ]));
  assert.doesNotMatch(places, /cf_(st|pr|at)_\w{20}|eyJ[\w-]{20}/, "SEC-104: a token is in the page");
}

async function main(browser) {
  const laptop = await open(browser, url);
  const { page } = laptop;
  laptop.context.setDefaultTimeout(60000); // the tests run beside each other
  const present = await authenticator(page, false);
  await page.goto(`${url}/shop?shelf=3`);
  await page.waitForURL(/\/account\/sign-in\?next=/);
  await says(page, /Sign in with a passkey/);
  await seen(page, "sign-in");

  // By keyboard alone.
  await page.locator("[name=email]").focus();
  await page.keyboard.type(email);
  await page.keyboard.press("Tab");
  await page.keyboard.type("something else entirely");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Show the password");
  await page.keyboard.press("Space");
  assert.equal(await page.locator("[name=password]").getAttribute("type"), "text");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await says(page, /The e-mail address or the password is not right/);
  assert.equal(await page.inputValue("[name=email]"), email, "what was typed stays");
  assert.equal(await page.inputValue("[name=password]"), "");
  assert.equal(await page.evaluate(() => document.activeElement.name), "password");
  await seen(page, "sign-in-error");

  await page.click("text=Create an account");
  await seen(page, "sign-up");
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", "password1234password1234");
  await page.click("text=Create the account");
  await says(page, /too easy to guess/);
  await seen(page, "sign-up-error");
  await page.fill("[name=password]", word);
  await page.click("text=Create the account");
  await page.waitForURL(`${url}/shop?shelf=3`);
  say("signed up, and came where the way had led");

  // A phone without JavaScript.
  const phone = await open(browser, url, { width: 390, userAgent: iphone, javaScriptEnabled: false });
  phone.context.setDefaultTimeout(60000);
  await signIn(phone.page);
  assert.match(await text(phone.page), /Safari on iPhone\s+this device/);
  await page.goto(`${account}/`);
  await says(page, /this device[\s\S]*Safari on iPhone[\s\S]*End all other devices/);
  await seen(page, "devices");
  await page.getByRole("button", { name: /^End Safari on iPhone/ }).click();
  await says(page, /The device was signed out[\s\S]*No other device is signed in/);
  await seen(page, "devices-one");
  await phone.page.goto(`${url}/shop`);
  assert.match(await text(phone.page), /You are signed out[\s\S]*from another of your devices/);
  await look2(browser, phone, "signed-out-ended");
  say("ended the phone from the laptop; the phone says why");

  // Step-up: what was blocked goes on, once.
  await later(page, 20);
  await page.goto(`${url}/shop`);
  await page.fill("[name=words]", "two\nlines & a sign: ü");
  await page.click("text=Pay");
  await says(page, /Confirm that it is you[\s\S]*goes on to \/pay/);
  await seen(page, "step-up");
  await page.fill("[name=password]", "something else entirely");
  await page.click("text=Confirm >> nth=-1");
  await says(page, /The password is not right/);
  await seen(page, "step-up-error");
  await page.fill("[name=password]", word);
  await page.click("button:text-is('Confirm')");
  await says(page, /payment 1:/);
  assert.match(await text(page), /"from":\["shop"\].*"to":\["bob" "eve"\].*"words":\["two\\r\\nlines & a sign: ü"\]/);

  await signIn(phone.page);
  await later(page, 20);
  await phone.page.goto(`${url}/shop`);
  await phone.page.click("text=Pay");
  await phone.page.fill("[name=password]", word);
  await phone.page.click("button:text-is('Confirm')");
  assert.match(await text(phone.page), /What you had sent goes on now/);
  await look2(browser, phone, "repeat");
  await phone.page.click("text=Go on");
  assert.match(await text(phone.page), /payment 2:/);
  say("stepped up; the form was sent once, with and without JavaScript");

  // Passkeys. The last proof is old, so the step-up comes first.
  await later(page, 20);
  await page.goto(`${account}/passkeys`);
  await seen(page, "passkeys-none");
  await present(true);
  await page.fill("form.add [name=name]", "My laptop");
  await page.click("text=Add a passkey");
  await page.waitForURL(/step-up\?next=passkeys/);
  await page.fill("[name=password]", word);
  await page.click("button:text-is('Confirm')");
  await page.waitForURL(/\/passkeys$/);
  await page.fill("form.add [name=name]", "My laptop");
  await page.click("text=Add a passkey");
  await says(page, /The passkey was added[\s\S]*My laptop/);
  await page.click("summary >> nth=0");
  await seen(page, "passkeys");
  await page.fill("details[open] [name=name]", "Work laptop");
  await page.click("details[open] button");
  await says(page, /has its new name[\s\S]*Work laptop/);
  await page.click("summary >> nth=1");
  await seen(page, "passkeys-remove");
  await page.click("text=Add a passkey");
  await says(page, /has a passkey for this account already/);
  await seen(page, "passkeys-fault");

  await later(page, 20);
  await page.goto(`${account}/step-up?next=/shop`);
  await page.click("text=Confirm with a passkey");
  await page.waitForURL(`${url}/shop`);
  await keepsTokens(laptop);
  await page.goto(`${account}/devices`);
  await says(page, /confirmed\s+just now/);
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await says(page, /You are signed out/);
  assert.deepEqual((await laptop.context.cookies()).map((c) => c.name), [], "cookies after the sign-out");
  await seen(page, "signed-out");
  // Offered in the field of the address; the device is touched at once.
  await page.goto(`${account}/sign-in`);
  await page.waitForURL(/\/devices$/);
  await says(page, /with a passkey/);
  await page.goto(`${account}/sign-in`);
  await says(page, /This browser is signed in/);
  await seen(page, "signed-in");

  // By the button, in a browser that offers nothing by itself and cannot
  // translate JSON.
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await page.addInitScript(() => {
    if (!globalThis.PublicKeyCredential) return;
    for (const name of ["isConditionalMediationAvailable", "parseCreationOptionsFromJSON", "parseRequestOptionsFromJSON"]) delete PublicKeyCredential[name];
    delete PublicKeyCredential.prototype.toJSON;
  });
  await page.goto(`${account}/sign-in`);
  await page.click("text=Sign in with a passkey");
  await page.waitForURL(/\/devices$/);
  say("passkeys: added, renamed, stepped up, signed in by button and by autofill");

  const other1 = await open(browser, url);
  other1.context.setDefaultTimeout(60000);
  await authenticator(other1.page);
  await other1.page.goto(`${account}/sign-up`);
  await other1.page.fill("[name=email]", "bob@example.com");
  await other1.page.click("text=Create it with a passkey");
  await other1.page.waitForURL(/\/devices$/);
  await other1.page.goto(`${account}/password`);
  await says(other1.page, /This account has no password/);
  await seen(other1.page, "password-none");

  // Password: changed, forgotten, reset by the link.
  await page.goto(`${account}/password`);
  await page.fill("[name=current]", "something else entirely");
  await page.fill("[name=new]", other);
  await page.click("button:text-is('Change the password')");
  await says(page, /The present password is not right/);
  await seen(page, "password");
  await page.goto(`${account}/forgot-password`);
  await seen(page, "forgot-password");
  await page.fill("[name=email]", email);
  await page.click("text=Send the link");
  await says(page, /If there is an account with the address ada@example.com/);
  await seen(page, "forgot-password-sent");
  let link = "";
  for (const end = Date.now() + 15000; link === "" && Date.now() < end;) link = await (await page.request.get(`${url}/test/mail`)).text();
  await phone.page.goto(link);
  assert.ok(await phone.page.locator("[name=token]").isVisible(), "without JavaScript the code is pasted");
  await look2(browser, phone, "reset-password");
  await page.goto("about:blank");
  await page.goto(link);
  await page.waitForFunction(() => location.hash === "");
  assert.ok(!await page.locator("[name=token]").isVisible());
  await keepsTokens(laptop);
  await page.fill("[name=new]", "password1234password1234");
  await page.click("text=Set the password");
  await says(page, /too easy to guess/);
  await page.waitForFunction(() => location.hash === "");
  assert.ok(!await page.locator("[name=token]").isVisible(), "the link does for a second try");
  await keepsTokens(laptop);
  await page.fill("[name=new]", other);
  await page.click("text=Set the password");
  await says(page, /The new password is set/);
  assert.ok(!page.url().includes("cf_pr_"));
  await seen(page, "reset-password-done");
  await page.goto(`${account}/no/such/page`);
  await says(page, /There is no page at this address/);
  await seen(page, "fault");
  say("reset the password; the code was never in an address that is sent");

  // A sign-in may lead to an origin that was allowed, and nowhere else.
  const guest = await (await browser.newContext()).newPage();
  for (const [next, ends] of [[`${elsewhere}/elsewhere`, `${elsewhere}/elsewhere`], ["//evil.example/", `${account}/devices`]]) {
    await guest.goto(`${account}/sign-in?next=${encodeURIComponent(next)}`);
    if (await guest.locator("text=Go on").count()) await guest.click("button:text-is('Sign out')");
    await guest.goto(`${account}/sign-in?next=${encodeURIComponent(next)}`);
    await guest.fill("[name=email]", email);
    await guest.fill("[name=password]", other);
    await guest.click("form.fields button:not([type=button])");
    await guest.waitForURL(ends);
  }

  for (const [who, o] of Object.entries({ laptop, phone, other1 })) assert.deepEqual(o.faults.filter((f) => !/404|409/.test(f)), [], `${who} misbehaved`);
  say(`${seenPages.length} pages looked at, each by axe-core in light and dark`);
}

// look2 looks at what a browser without JavaScript shows: the same page in one
// that has it, since looking is done by script.
async function look2(browser, { page }, name) {
  const html = (await page.content()).replace(/<script[^>]*><\/script>/g, "");
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 } });
  const copy = await context.newPage();
  await copy.route(page.url().split("#")[0], (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body: html }));
  await copy.goto(page.url().split("#")[0]);
  await seen(copy, name);
  await context.close();
}

const browser = await launch();
try {
  await main(browser);
} finally {
  await browser.close();
}
