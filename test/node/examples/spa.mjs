// The story of examples/spa: an account, protected calls, a session that ends
// elsewhere, step-up, passkeys. The argument is the application's address.
import assert from "node:assert/strict";
import { authenticator, email, iphone, say, says, seen, story, word } from "./story.mjs";

const url = process.argv[2];
const later = (page, minutes) => page.request.post(`${url}/test/later?minutes=${minutes}`);

async function leave(page, thing) {
  await page.fill("[name=thing]", thing);
  await page.click("text=Leave it");
  await says(page, new RegExp(thing), "#things");
}

async function signIn(page) {
  await page.fill("#door [name=email]", email);
  await page.fill("#door [name=password]", word);
  await page.click("#door button.main");
  await page.waitForSelector("#room", { state: "visible" });
}

await story(async (open) => {
  const laptop = await open(url);
  const { page } = laptop;
  await says(page, /Sign in with a passkey/);
  await seen(page, "spa-door");
  await page.fill("#door [name=email]", email);
  await page.fill("#door [name=password]", "something else entirely");
  await page.click("#door button.main");
  await says(page, /That is not right/);
  await page.click("text=Create an account");
  await page.fill("#door [name=password]", word);
  await page.click("text=Create the account");
  await says(page, /Nothing is here yet/);
  await leave(page, "An umbrella");
  await says(page, /this device/);
  await seen(page, "spa-room");
  say("signed up, and left a thing");

  // Refreshes that nobody notices: rights that changed, a token that is over.
  const sid = await page.innerText("#sid");
  await page.evaluate(() => {
    window.doors = 0;
    new MutationObserver(() => (window.doors += document.querySelector("#door").hidden ? 0 : 1)).observe(document.querySelector("#door"), { attributes: true });
  });
  await page.request.post(`${url}/test/rights`);
  await leave(page, "A hat");
  await later(page, 2);
  await leave(page, "A coat");
  assert.equal(await page.evaluate(() => window.doors), 0);
  assert.equal(await page.innerText("#sid"), sid);
  say("stale and expired tokens went unnoticed");

  // A phone ends all other devices: the laptop says so at once, by itself.
  const phone = await open(url, { width: 390, userAgent: iphone });
  await signIn(phone.page);
  await says(phone.page, /Safari on iPhone/);
  await seen(phone.page, "spa-devices");
  await phone.page.click("#end-others");
  const ended = Date.now();
  await says(page, /You were signed out from another of your devices/);
  say(`the laptop knew ${Date.now() - ended} ms after the click`);
  assert.equal(await page.locator("#things li").count(), 0, "things of somebody who is signed out");
  await seen(page, "spa-ended");
  await signIn(page);
  await says(page, /A coat/, "#things");

  // The route that wants a fresh proof: asked once, and the call goes on.
  await later(page, 20);
  await page.click("#collect");
  await says(page, /Confirm that it is you/, "#step-up");
  await seen(page, "spa-step-up");
  await page.click("text=Not now");
  await says(page, /Nothing was done/);
  assert.equal(await page.locator("#things li").count(), 3);
  await page.click("#collect");
  await page.fill("#step-up [name=password]", "something else entirely");
  await page.click("#step-up-password button");
  await says(page, /That is not right/, "#step-up");
  await page.fill("#step-up [name=password]", word);
  await page.click("#step-up-password button");
  await says(page, /Nothing is here yet/, "#things");
  assert.ok(!await page.locator("#step-up").isVisible());
  say("stepped up; the blocked call went on");

  // Passkeys: added after a step-up, used for one, and to sign in.
  const present = await authenticator(page);
  await leave(page, "A lamp");
  await later(page, 20);
  await page.click("#add-passkey");
  await page.fill("#step-up [name=password]", word);
  await page.click("#step-up-password button");
  await says(page, /The passkey was added/);
  await later(page, 20);
  await page.click("#collect");
  await page.click("#step-up-passkey");
  await says(page, /Nothing is here yet/, "#things");
  await present(false); // otherwise the offer in the field is taken at once
  await page.click("#sign-out");
  await says(page, /Sign in with a passkey/);
  await present(true);
  await page.evaluate(() => document.querySelector("#door-passkey").click());
  await page.waitForSelector("#room", { state: "visible" });
  say("passkeys: added, stepped up, signed in");

  const guest = await open(url);
  await authenticator(guest.page);
  await guest.page.click("text=Create an account");
  await guest.page.fill("#door [name=email]", "bob@example.com");
  await guest.page.click("text=Create it with a passkey");
  await says(guest.page, /Nothing is here yet/);
  say("signed up with a passkey");

  // No token is where a script could find it later (SEC-104).
  const places = await page.evaluate(() => JSON.stringify([document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
  for (const token of laptop.secrets) assert.ok(!places.includes(token), "SEC-104: a token is in the page");
  assert.ok(laptop.secrets.size > 3);
});
