// The story of examples/ssr: pages of a server, those of the account among
// them. The arguments are its address, and the librarian's name and password.
import assert from "node:assert/strict";
import { email, iphone, say, says, seen, story, word } from "./story.mjs";

const [url, librarian, desk] = process.argv.slice(2);
const later = (page, minutes) => page.request.post(`${url}/test/later?minutes=${minutes}`);

async function signIn(page, who, password) {
  await page.goto(url);
  await page.fill("[name=email]", who);
  await page.fill("[name=password]", password);
  await page.click("form.fields button:not([type=button])");
  await says(page, /My books/);
}

await story(async (open) => {
  const laptop = await open(url);
  const { page } = laptop;
  await page.waitForURL(/\/account\/sign-in\?next=/);
  await page.click("text=Create an account");
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", word);
  await page.click("text=Create the account");
  await page.waitForURL(`${url}/`);
  await says(page, /You have no book/);
  await page.click("[aria-label^='Borrow Two Years']");
  await page.click("[aria-label^='Borrow The Voyage']");
  await says(page, /Give back/);
  await seen(page, "ssr-home");
  say("signed up, and borrowed two books");

  // What was typed goes through the confirmation, and is sent once.
  await later(page, 20);
  await page.fill("[name=address]", "Quay 2 & a half");
  await page.click("text=Save");
  await says(page, /Confirm that it is you/);
  await page.fill("[name=password]", word);
  await page.click("button:text-is('Confirm')");
  await page.waitForURL(`${url}/`);
  assert.equal(await page.inputValue("[name=address]"), "Quay 2 & a half");
  say("stepped up; the form went on");

  // The librarian, on a phone without JavaScript.
  const phone = await open(url, { width: 390, userAgent: iphone, javaScriptEnabled: false });
  await phone.page.fill("[name=email]", librarian);
  await phone.page.fill("[name=password]", desk);
  await phone.page.click("form.fields button:not([type=button])");
  await phone.page.click("text=The desk");
  assert.match(await phone.page.innerText("body"), /The Voyage of the Beagle\s+ada@example.com, Quay 2 & a half/);
  await phone.page.click("text=Sign out");
  const counter = await open(url);
  await signIn(counter.page, librarian, desk);
  await counter.page.click("text=The desk");
  await seen(counter.page, "ssr-desk");

  // Ended from another browser.
  const other = await open(url);
  await signIn(other.page, email, word);
  await other.page.click("text=My devices");
  await other.page.click("text=End all other devices");
  await says(other.page, /No other device/);
  await page.goto(url);
  await says(page, /You are signed out[\s\S]*from another of your devices/);
  say("ended elsewhere; the page says why");
});
