// What the stories of the examples share.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { launch, look, open } from "../demo/browser.mjs";

const axe = await readFile(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "node_modules", "axe-core", "axe.min.js"), "utf8");
const began = Date.now();
export const say = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);

export const iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";
export const [email, word] = ["ada@example.com", "paper boats on a green river"];

// story runs one with a browser, and checks at the end that no page misbehaved.
export async function story(tell) {
  const browser = await launch();
  const all = [];
  try {
    await tell(async (url, options) => {
      const opened = await open(browser, url, options);
      opened.context.setDefaultTimeout(60000); // the tests run beside each other
      all.push(opened);
      return opened;
    });
    for (const { page, faults } of all) assert.deepEqual(faults.filter((f) => !/status of (404|409)/.test(f)), [], `${page.url()} misbehaved`);
  } finally {
    await browser.close();
  }
}

// seen looks at a page in light and dark, wide and narrow, and has axe-core look too.
export async function seen(page, name) {
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

export async function says(page, pattern, where = "body") {
  await page.waitForFunction(([source, selector]) => new RegExp(source).test(document.querySelector(selector)?.innerText ?? ""), [pattern.source, where]).catch(() => {});
  assert.match(await page.locator(where).innerText(), pattern);
}

// authenticator is a device with a screen lock that can keep passkeys. What is
// returned has it react, or not.
export async function authenticator(page) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options: {
    protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true,
  } });
  return (enabled) => cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId, enabled });
}
