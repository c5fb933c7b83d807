// A headless Chromium for the tests, and what every page must keep: no errors
// on the console, no violation of its policy, no request to another host, no
// sideways scrolling, readable contrast.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

const need = createRequire(join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const { chromium } = need("playwright-core");
const screenshots = process.env.COUNTERFOIL_TEST_SCREENSHOTS;

export function launch() {
  return chromium.launch({
    executablePath: process.env.COUNTERFOIL_TEST_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

// An answer such as 401 is part of the story; Chromium logs each as an error.
const expected = /^Failed to load resource: the server responded with a status of (400|401|403|503) /;

// open opens a page in a profile of its own. faults collects what it must not do.
export async function open(browser, url, { width = 1440, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 1000 }, ...options });
  context.setDefaultTimeout(15000);
  const page = await context.newPage();
  const faults = [];
  const secrets = new Set(); // every token that an answer brought
  page.on("console", (m) => { if (["error", "warning"].includes(m.type()) && !expected.test(m.text())) faults.push(`console: ${m.text()}`); });
  page.on("pageerror", (e) => faults.push(`script: ${e.message}`));
  page.on("request", (r) => { if (new URL(r.url()).origin !== url) faults.push(`request to ${r.url()}`); });
  page.on("response", async (r) => {
    if (!/json/.test(r.headers()["content-type"] ?? "")) return;
    const text = await r.text().catch(() => "");
    for (const [token] of text.matchAll(/eyJ[\w-]+\.[\w-]+\.[\w-]+|cf_st_\w+/g)) secrets.add(token);
  });
  await page.goto(url);
  return { context, page, faults, secrets };
}

// look checks the page in both colour schemes and widths, and keeps pictures
// of it where somebody wants them.
export async function look(page, name) {
  const before = page.viewportSize();
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    // A change of colours that has begun goes on, and half of one has no contrast.
    await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getComputedTiming().endTime !== Infinity).map((a) => a.finished)));
    for (const width of [1440, 390]) {
      await page.setViewportSize({ width, height: width === 390 ? 844 : 1000 });
      const at = `${name}, ${colorScheme}, ${width}`;
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${at}: scrolls sideways`);
      assert.deepEqual(await page.evaluate(faint), [], `${at}: contrast below 4.5:1`);
      if (screenshots) {
        await mkdir(screenshots, { recursive: true });
        await page.screenshot({ path: join(screenshots, `${name}-${colorScheme}-${width}.png`), fullPage: true });
      }
    }
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
  await page.setViewportSize(before);
}

// faint runs in the page. It lists texts whose contrast is below WCAG's AA.
function faint() {
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour[3] === undefined || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest(":disabled, .unseen, .skip, noscript")) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${e.className || e.tagName}: ${walk.currentNode.data.trim()} (${((a + 0.05) / (b + 0.05)).toFixed(2)})`);
  }
  return bad;
}
