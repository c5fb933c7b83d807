// The story of examples/express with the authority's pages. The arguments are
// the application's address and the authority's.
import assert from "node:assert/strict";
import { email, iphone, say, says, seen, story, word } from "./story.mjs";

const [url, authority] = process.argv.slice(2);

async function order(page, what) {
  await page.fill("[name=what]", what);
  await page.click("#order button");
  await says(page, new RegExp(what), "#orders");
}

// longAgo gives the browser a session whose user signed in an hour ago.
async function longAgo({ page, context }) {
  const { subject } = await (await page.request.get(`${url}/v1/auth/session`)).json();
  const res = await fetch(`${authority}/v1/sessions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${process.env.COUNTERFOIL_API_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ subject, amr: ["pwd"], auth_time: Math.floor(Date.now() / 1000) - 3600 }),
  });
  const [, name, value] = /^([^=]+)=([^;]+)/.exec((await res.json()).set_cookie);
  await context.addCookies([{ name, value, url: url.replace("http:", "https:"), secure: true, httpOnly: true, sameSite: "Lax" }]);
  await page.goto(url);
}

await story(async (open) => {
  const laptop = await open(url);
  const { page } = laptop;
  await says(page, /Come aboard/);
  await seen(page, "express-door");
  await page.click("text=Create an account");
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", word);
  await page.click("text=Create the account");
  await page.waitForURL(`${url}/`);
  await says(page, /Nothing is ordered yet/);
  await order(page, "Forty fathoms of rope");
  await seen(page, "express-shop");
  await page.click("#pay");
  await says(page, /Nothing is ordered yet/);
  await order(page, "A lamp");
  say("signed up at the authority's page; ordered and paid");

  // Who comes back without a confirmation is not sent in circles.
  await longAgo(laptop);
  await says(page, /A lamp/);
  await page.click("#pay");
  await page.waitForURL(/\/account\/step-up/);
  await says(page, /Confirm that it is you/);
  await page.goto(url);
  await says(page, /That was not done/);
  await says(page, /A lamp/, "#orders");
  await page.goto(url);
  await says(page, /A lamp/, "#orders");
  assert.doesNotMatch(await page.innerText("body"), /That was not done/);
  await page.click("#pay");
  await says(page, /Confirm that it is you/);
  await page.fill("[name=password]", word);
  await page.click("button:text-is('Confirm')");
  await page.waitForURL(`${url}/`);
  await says(page, /Nothing is ordered yet/);
  await order(page, "Lime juice");
  await page.reload();
  await says(page, /Lime juice/, "#orders"); // it was repeated once, not with each visit
  say("stepped up at the authority's page; the payment went on");

  const phone = await open(`${url}`, { width: 390, userAgent: iphone });
  await phone.page.click("a:text-is('Sign in')");
  await phone.page.fill("[name=email]", email);
  await phone.page.fill("[name=password]", word);
  await phone.page.click("form.fields button:not([type=button])");
  await says(phone.page, /Lime juice/, "#orders");
  await phone.page.click("text=My devices");
  await phone.page.click("text=End all other devices");
  await says(page, /You were signed out from another of your devices/);
  await seen(page, "express-ended");
  say("ended on the phone; the page says why");
});
