// A thousand browsers, each with up to ten tabs, through everything that networks, clocks and users do. The seed is printed;
// COUNTERFOIL_SEED=… has a run again, COUNTERFOIL_CLIENTS=… changes their number.
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { test } from "node:test";
import { Client, tally } from "./client.mjs";
import { settle } from "./world.mjs";

const seed = Number(process.env.COUNTERFOIL_SEED ?? Math.floor(Math.random() * 2 ** 31));
const clients = Number(process.env.COUNTERFOIL_CLIENTS ?? 1000);
const dist = fileURLToPath(new URL("../dist/", import.meta.url));

/** Lives the clients side by side: an event of each, then whatever follows from them without time passing. */
async function live(modules, first, number) {
  const counts = tally();
  let alive = [];
  for (let i = 0; i < number; i++) alive.push(new Client(first + i, modules, counts));
  while (alive.length > 0) {
    await settle();
    alive = alive.filter((client) => {
      try {
        return client.next();
      } catch (error) {
        throw new Error(`client ${client.seed}: ${error.message}`, { cause: error });
      }
    });
  }
  return counts;
}

test("a thousand clients: no false sign-out, no missed end, no endless wait", async () => {
  console.log(`seed ${seed}`);
  const counts = await live(await import("../dist/core.js"), seed, clients);
  console.log(`seed ${seed}: ${JSON.stringify(counts)}`);
  if (clients < 1000) return;
  // A run in which nothing happens proves nothing.
  for (const name of ["ends", "noticed", "stale", "tokens", "calls", "refreshes"]) assert(counts[name] > clients / 5, `${name}: ${counts[name]}`);
  for (const name of ["ended", "signed-out", "signed-in", "refreshing-later"]) assert(counts.states[name] > clients / 5, `${name}: ${counts.states[name]}`);
});

// The fuzz is worth what it finds. Each of these is a mistake that packages of this kind have made.
for (const [name, before, after, message] of [
  ["one answer ends it", "if (error.ended && !doubt && state", "if (false && state", /ended .* while/],
  ["an empty jar ends it", "if (missing && (left || !session))", "if (missing)", /signed-out while|with a live session/],
  ["late answers count", "if (answers?.number !== number)", "if (!answers)", /./],
  ["the wall clock alone tells the age", "Math.max(p.mono() - then[0], p.wall() - then[1], 0)", "Math.max(p.wall() - then[1], 0)", /./],
  ["a network error ends it", "this.status === 401 &&", "this.status === 0 ||", /./],
  ["no budget, no back-off", "next = Math.max(rest(backoff), rest(told), broke, doubting())", "next = 0", /./],
  ["an end is never believed", "else if (error.ended || (missing && doubt))", "else if (missing && doubt)", /./],
]) {
  test(`the fuzz finds a planted bug: ${name}`, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), "counterfoil-planted-"));
    t.after(() => rm(dir, { recursive: true }));
    await cp(dist, dir, { recursive: true });
    await writeFile(join(dir, "package.json"), '{"type": "module"}');
    let planted = 0;
    for (const file of ["machine.js", "errors.js"]) {
      const code = await readFile(join(dir, file), "utf8");
      if (!code.includes(before)) continue;
      planted++;
      await writeFile(join(dir, file), code.replace(before, after));
    }
    assert.equal(planted, 1, `${before} is not in the code any more`);
    const modules = await import(pathToFileURL(join(dir, "core.js")));
    await assert.rejects(async () => {
      // The same clients each time: that they find it does not change from run to run.
      for (let i = 0; i < 10; i++) await live(modules, 1 + 100 * i, 100);
    }, message);
  });
}
