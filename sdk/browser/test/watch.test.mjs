// The stream of the session's events: one tab holds it, and what it says is a hint.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createCore } from "../dist/core.js";
import { browser } from "./helper.mjs";
import { Tab, problem, settle } from "./world.mjs";

const minute = 60_000;

/** A browser whose authority has the stream. `open` are the streams that are. */
async function watching({ tabs = 2, locks = true, refuse = () => undefined } = {}) {
  const open = [];
  let holder = false;
  const b = await browser({ tabs: 0 });
  const request = b.world.request.bind(b.world);
  b.asked = 0;
  b.world.request = (tab, input, init) => {
    if (!String(input).endsWith("/session/watch")) return request(tab, input, init);
    b.asked++;
    const refusal = refuse(b.asked);
    if (refusal) return Promise.resolve(refusal);
    const stream = { tab };
    const body = new ReadableStream({ start: (c) => (stream.controller = c) });
    stream.send = (text) => stream.controller.enqueue(new TextEncoder().encode(text));
    stream.cut = () => (open.splice(open.indexOf(stream), 1), stream.controller.error(new TypeError("cut")));
    init.signal.addEventListener("abort", () => open.includes(stream) && stream.cut());
    open.push(stream);
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  };
  const lock = async (_, held) => {
    if (holder) return false;
    holder = true;
    await held();
    holder = false;
    return true;
  };
  const core = (platform, options) => createCore(locks ? { ...platform, lock } : platform, options);
  b.tabs = Array.from({ length: tabs }, () => new Tab(b.world, core, { watch: true }));
  await until(b.world, () => b.tabs.every((tab) => tab.state.status === "signed-in") && b.asked > 0);
  return Object.assign(b, { open });
}

/** Lets time pass until it is so; reading a stream takes turns of the real loop too. */
async function until(world, condition, ms = 2 * minute) {
  for (const end = world.now + ms; world.now < end; ) {
    await world.run(50);
    for (let i = 0; i < 5; i++) await settle();
    if (condition()) return;
  }
  assert.fail(`not in ${ms} ms: ${condition}`);
}

test("one tab holds the stream; an end reaches all tabs at once", async () => {
  const { world, tabs, open } = await watching({ tabs: 4 });
  await until(world, () => open.length === 1);
  world.end(world.current, "session_revoked", "revoked");
  const start = world.now;
  open[0].send('event: hello\ndata: {}\n\n: beat\n\nevent: en');
  open[0].send('ded\ndata: {"code":"session_revoked"}\n\n');
  await until(world, () => tabs.every((tab) => tab.state.status === "ended"));
  assert(world.now - start < 1000, `${world.now - start} ms`);
  await until(world, () => open.length === 0);
});

test("an event is a hint: if the session lives, nothing has happened", async () => {
  const { world, tabs, open } = await watching();
  await until(world, () => open.length === 1);
  open[0].send("event: ended\r\ndata: {}\r\n\r\n");
  await world.run(5000);
  assert(tabs.every((tab) => tab.state.status === "signed-in" && tab.states.length === 1));
});

test("stale rights are refreshed in all tabs", async () => {
  const { world, tabs, open } = await watching();
  await until(world, () => open.length === 1);
  world.bump("ada");
  world.sent.length = 0;
  open[0].send("event: stale\ndata: {}\n\n");
  await until(world, () => new Set(world.sent.map(({ tab }) => tab)).size === tabs.length, 1000);
});

test("without locks each visible tab holds one; a hidden tab lets go", async () => {
  const { world, tabs, open } = await watching({ tabs: 2, locks: false });
  await until(world, () => open.length === 2);
  tabs[0].show(false);
  await until(world, () => open.length === 1);
  tabs[0].show(true);
  await until(world, () => open.length === 2);
});

test("another tab takes over", async () => {
  const { world, open } = await watching({ tabs: 2 });
  await until(world, () => open.length === 1);
  const { tab } = open[0];
  tab.close();
  await until(world, () => open.length === 1 && open[0].tab !== tab);
});

test("silence is a cut; a stream that was cut is opened again, seldom while that fails", async () => {
  const b = await watching({ tabs: 1, refuse: (n) => n > 2 && n < 40 && problem("unavailable", 503) });
  await until(b.world, () => b.asked === 2 && b.open.length === 1, 2 * minute); // after 45 s without a beat
  b.open[0].cut();
  await until(b.world, () => b.asked === 3);
  for (let i = 0; i < 40; i++) await until(b.world, () => true);
  await b.world.run(5 * minute);
  assert(b.asked < 20, `${b.asked} tries`);
  assert.equal(b.tabs[0].state.status, "signed-in");
});
