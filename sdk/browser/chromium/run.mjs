// The cases, side by side in one browser. Arguments: the address that makes sites, and the hash of their servers' key. Prints a
// line of JSON for each case. COUNTERFOIL_CASES chooses by name, COUNTERFOIL_SIDE_BY_SIDE says how many at a time.
import { launch, Site } from "./browser.mjs";

const nouns = ["tabs", "network", "sleep", "clock", "ends", "users", "rights", "hosts"];
const only = new RegExp(process.env.COUNTERFOIL_CASES ?? "");
const sideBySide = Number(process.env.COUNTERFOIL_SIDE_BY_SIDE ?? 4);
const limit = 180_000; // of one case, on a machine that does much else

const cases = [];
for (const noun of nouns) {
  const { default: register } = await import(`./${noun}.mjs`);
  register((name, ...rest) => cases.push({ name: `${noun}: ${name}`, run: rest.pop(), options: rest[0] }));
}

/** What the pages show and told, and what was asked of the site. */
async function told(site) {
  const lines = [];
  for (const { tabs } of site.profiles) {
    for (const tab of tabs) lines.push(`the page shows: ${await tab.who().catch((e) => e.message)}; it told ${JSON.stringify(await tab.statuses().catch((e) => e.message))}`);
  }
  for (const e of (await site.log()).slice(-60)) lines.push(`${e.at.slice(14, 23)} ${e.method} ${e.path} ${e.fault ?? ""} ${e.status} ${JSON.stringify(e.body ?? "")}`);
  return lines.join("\n  ");
}

async function live(browser, { name, run, options }) {
  const began = Date.now();
  const site = await Site.open(browser, options);
  let error;
  let timer;
  try {
    await Promise.race([run(site), new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`not over in ${limit / 1000} s`)), limit)))]);
    await site.check();
  } catch (e) {
    error = `${e.stack}\n  ${await told(site).catch((e) => e.message)}`;
  }
  clearTimeout(timer);
  await site.close();
  console.log(JSON.stringify({ name, seconds: (Date.now() - began) / 1000, error }));
}

const browser = await launch();
try {
  const waiting = cases.filter(({ name }) => only.test(name));
  const lane = async () => {
    for (let next; (next = waiting.shift()); ) await live(browser, next);
  };
  await Promise.all(Array.from({ length: sideBySide }, lane));
} finally {
  await browser.close();
}
