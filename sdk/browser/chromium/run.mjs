// The cases, side by side in one browser. Arguments: the address that makes sites, and the hash of their servers' key.
import { after, before, describe, test } from "node:test";
import { launch, Site } from "./browser.mjs";

let browser;
const modules = await Promise.all(["tabs", "network", "sleep", "clock", "ends", "users", "rights", "hosts"].map((name) => import(`./${name}.mjs`)));

/** Registers a case; `run` gets its site. */
const cases = (name, ...rest) => {
  const run = rest.pop();
  test(name, { timeout: 90_000 }, async () => {
    const site = await Site.open(browser, rest[0]);
    try {
      await run(site);
    } catch (error) {
      // What the user saw last, and what had been asked for.
      for (const { tabs } of site.profiles) {
        for (const tab of tabs) error.message += `\n  the page shows: ${await tab.who().catch((e) => e.message)}; it told ${JSON.stringify(await tab.states().catch(() => "nothing"))}`;
      }
      error.message += "\n  " + (await site.log()).map((e) => `${e.at.slice(14, 23)} ${e.method} ${e.path} ${e.fault ?? ""} ${e.status} ${JSON.stringify(e.body ?? "")}`).join("\n  ");
      await site.leave();
      throw error;
    }
    await site.close();
  });
};

describe("in Chromium", { concurrency: 4 }, () => {
  before(async () => { browser = await launch(); });
  after(() => browser?.close());
  for (const { default: register } of modules) register(cases);
});
