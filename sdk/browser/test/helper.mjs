import { createCore } from "../dist/core.js";
import { Tab, World, generator } from "./world.mjs";

/** A browser with tabs in a world without faults; signed in as ada from an earlier visit, unless told otherwise. */
export async function browser({ tabs = 1, cookie = true, options = {} } = {}) {
  const world = new World(generator(7));
  if (cookie) world.jar = world.start("ada").secret;
  const opened = Array.from({ length: tabs }, () => new Tab(world, createCore, options));
  await world.run(1000);
  world.sent.length = 0;
  return { world, tabs: opened, tab: opened[0], session: opened[0]?.session };
}

/** Lets up to ms of the world's time pass for a promise; the result of both kinds, and how long it took. */
export async function timed(world, promise, ms = 60_000) {
  const start = world.now;
  let result;
  promise.then(
    (value) => (result = { value, took: world.now - start }),
    (error) => (result = { error, took: world.now - start }),
  );
  for (let left = ms; left >= 0 && !result; left -= 10) await world.run(left === 0 ? 0 : 10);
  if (!result) throw new Error(`not settled after ${ms} ms`);
  return result;
}

/** Answers every refresh with what `answer` makes, for as long as it makes something. */
export function answering(world, answer) {
  const serve = world.serve.bind(world);
  world.serve = (path, cookie, body) => (path === "/refresh" ? answer(cookie, body) : undefined) || serve(path, cookie, body);
}

export const statuses = (tab) => tab.states.map((state) => state.status);
