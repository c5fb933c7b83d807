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
