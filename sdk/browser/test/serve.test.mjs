// The package against a real authority.
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { createCore } from "../dist/core.js";
import { createServerSessions } from "../dist/server.js";
import { Jar, origin, password, platform, until } from "./authority.mjs";

const email = "ada@example.com";

/** A page of that origin. */
function page(t, url, jar, options, tabs) {
  const session = createCore(platform(url + "/start", jar, tabs), options);
  t.after(() => session.close());
  return session;
}

test("sign-up, a protected call, devices, step-up, sign-out", async (t) => {
  const { url } = await origin(t);
  const jar = new Jar();
  const session = page(t, url, jar);
  assert.equal((await session.ready).status, "signed-out");
  assert.equal((await session.fetch("/orders")).status, 401);
  const made = await session.signUp({ email, password });
  assert.equal(session.state.status, "signed-in");
  assert.equal(session.state.session.sid, made.sid);
  assert(Math.abs(session.clockSkew) < 2);
  const hello = await session.fetch("/orders");
  assert.equal(hello.status, 200);
  assert.equal((await hello.json()).sub, made.subject);

  const other = page(t, url, new Jar());
  await assert.rejects(other.signIn({ email, password: "wrong wrong wrong wrong" }), { code: "invalid_credentials", status: 401 });
  await other.signIn({ email, password });
  const devices = await session.devices.list();
  assert.deepEqual(devices.map((d) => d.current ?? false).sort(), [false, true]);
  assert.equal(typeof devices[0].device.userAgent, "string");
  await session.devices.endOthers();
  assert.equal((await other.fetch("/orders")).status, 401);
  assert.equal(other.state.status, "ended");
  assert.equal(other.state.reason, "signed_out_everywhere");
  assert.equal(other.state.sid, devices.find((d) => !d.current).sid);

  const cookie = jar.header;
  const stepped = await session.stepUp({ password });
  assert(stepped.authTime >= made.authTime);
  assert.notEqual(jar.header, cookie);
  assert.equal((await session.fetch("/orders")).status, 200);
  await session.signOut();
  assert.equal(session.state.status, "signed-out");
  assert.equal(jar.header, "");
  await assert.rejects(session.getToken(), { code: "credential_missing" });
});

test("ten tabs in one browser: a sign-in, a replaced session and a sign-out are everybody's", async (t) => {
  const { url } = await origin(t);
  const jar = new Jar();
  const channel = [];
  const tabs = Array.from({ length: 10 }, () => page(t, url, jar, {}, channel));
  await tabs[0].signUp({ email, password });
  await until("all signed in", () => tabs.every((tab) => tab.state.status === "signed-in"));
  await Promise.all(tabs.slice(0, 3).map((tab) => tab.stepUp({ password }).catch(() => {})));
  const statuses = await Promise.all(tabs.map(async (tab) => (await tab.fetch("/orders")).status));
  assert.deepEqual(new Set(statuses), new Set([200]));
  await tabs[1].signIn({ email, password });
  await until("all in the new session", () => new Set(tabs.map((tab) => tab.state.session?.sid)).size === 1);
  assert.deepEqual(new Set(tabs.map((tab) => tab.state.status)), new Set(["signed-in"]));
  await tabs[2].signOut();
  await until("all signed out", () => tabs.every((tab) => tab.state.status === "signed-out"));
});

test("with an audience, a token for it", async (t) => {
  const { url } = await origin(t);
  const session = page(t, url, new Jar(), { audience: "orders" });
  await session.signUp({ email, password });
  const claims = JSON.parse(Buffer.from((await session.getToken()).split(".")[1], "base64url"));
  assert.equal(claims.aud, "orders");
});

test("an audience that does not exist is an error of the code, not an end", async (t) => {
  const { url } = await origin(t);
  const session = page(t, url, new Jar(), { audience: "nowhere" });
  await session.signUp({ email, password });
  await assert.rejects(session.getToken(), { code: "invalid_request", field: "audience" });
  assert.equal(session.state.status, "refreshing-later");
});

test("watch: the end is heard of at once", async (t) => {
  const { url, seen } = await origin(t);
  const session = page(t, url, new Jar(), { watch: true });
  await session.signUp({ email, password });
  await until("the stream", () => seen.some((req) => req.url === "/auth/session/watch"));
  const other = page(t, url, new Jar());
  await other.signIn({ email, password });
  await new Promise((go) => setImmediate(go));
  const start = performance.now();
  await other.devices.endOthers();
  await until("the end", () => session.state.status === "ended");
  assert(performance.now() - start < 5000);
  assert.equal(session.state.reason, "signed_out_everywhere");
});

test("server rendering: one refresh for a page of many parts, and no cookie to write", async (t) => {
  const { url, serve, seen } = await origin(t);
  const jar = new Jar();
  await page(t, url, jar).signUp({ email, password });
  let refreshes = 0;
  const counting = (input, init) => {
    if (String(input).endsWith("/refresh")) refreshes++;
    return fetch(input, init);
  };
  const sessionOf = createServerSessions({ authority: serve + "/v1/auth", origins: [url], fetch: counting });
  const request = new Request(url + "/page", { headers: { cookie: `theme=dark; ${jar.header}; __Host-counterfoil-at=x`, "sec-fetch-mode": "navigate" } });
  const parts = await Promise.all(Array.from({ length: 50 }, async () => (await sessionOf(request).fetch(url + "/orders")).status));
  assert.deepEqual(new Set(parts), new Set([200]));
  assert.equal(refreshes, 1);
  // The loaders of some frameworks get requests of their own, of the same cookie.
  await Promise.all(Array.from({ length: 10 }, () => sessionOf({ headers: { cookie: jar.header } }).getToken()));
  assert.equal(refreshes, 1);
  assert.deepEqual(await sessionOf(request).setCookies(), []);
  assert.equal((await sessionOf(request).state()).status, "signed-in");
  assert(seen.every((req) => !/theme/.test(req.headers.cookie ?? "")));
  // Elsewhere no token goes.
  const other = createServerSessions({ authority: serve + "/v1/auth" });
  assert.equal((await other(request).fetch(url + "/orders")).status, 401);

  assert.equal((await sessionOf({ headers: {} }).state()).status, "signed-out");
  await assert.rejects(sessionOf({ headers: { cookie: "a=b" } }).getToken(), { code: "credential_missing" });
  await page(t, url, jar).signOut("all");
  const late = await createServerSessions({ authority: serve + "/v1/auth" })(request).state();
  assert.equal(late.status, "ended");
  const down = await createServerSessions({ authority: "http://127.0.0.1:1/v1/auth" })(request).state();
  assert.deepEqual([down.status, down.code], ["refreshing-later", "unavailable"]);
});

test("the first program of the README", async (t) => {
  const { url } = await origin(t);
  const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const program = /```js\n(.*?)```/s.exec(readme)[1];
  assert(program.trim().split("\n").length <= 10, "ten lines");
  const [, email, password] = /email: "(.*?)", password: "(.*?)"/.exec(program);
  await page(t, url, new Jar()).signUp({ email, password });
  // As much of a browser as createSession looks at.
  const jar = new Jar();
  const printed = [];
  const browser = { location: { href: url + "/" }, navigator: {}, addEventListener() {}, fetch: jar.fetch, BroadcastChannel: undefined, console: { log: (...args) => printed.push(args) } };
  for (const [name, value] of Object.entries(browser)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  const file = new URL("./readme-program.mjs", import.meta.url);
  await writeFile(file, program.replace('"@counterfoil/browser"', '"../dist/index.js"') + "\nexport { session };\n");
  t.after(() => rm(file));
  const { session } = await import(file);
  t.after(() => session.close());
  assert.equal(printed.length, 1);
  assert.equal(printed[0][0], 200);
  assert.match(printed[0][1], /"sub"/);
});
