// The rules of the refresh, one by one, on simulated time.
import assert from "node:assert/strict";
import { test } from "node:test";
import { answering, browser, statuses, timed } from "./helper.mjs";
import { json, problem } from "./world.mjs";

const minute = 60_000;

test("a valid token is given at once, without a request", async () => {
  const { world, session } = await browser();
  world.offline = true;
  const { value, took } = await timed(world, session.getToken());
  assert.match(value, /^tok-/);
  assert.equal(took, 0);
  assert.equal(world.sent.length, 0);
});

test("tokens are fresh at any time, at one refresh per token", async () => {
  const { world, session } = await browser();
  for (let i = 0; i < 60; i++) {
    await world.run(minute / 2);
    const { value, took } = await timed(world, session.getToken());
    assert.equal(took, 0);
    assert(world.tokens.get(value).exp > world.now);
  }
  assert(world.sent.length > 30 && world.sent.length < 60, `${world.sent.length} refreshes in 30 minutes`);
});

test("a hidden tab that nobody asks refreshes seldom, and at once when it is seen", async () => {
  const { world, tab, session } = await browser();
  tab.show(false);
  await world.run(60 * minute);
  assert(world.sent.length <= 13, `${world.sent.length} refreshes in an hour`);
  const before = world.sent.length;
  await world.run(100_000);
  tab.show(true);
  await world.run(1000);
  assert(world.sent.length > before);
  assert.equal((await timed(world, session.getToken())).took, 0);
});

test("many who ask wait for one refresh", async () => {
  const { world, session, tab } = await browser();
  tab.show(false);
  await world.run(2 * minute);
  world.sent.length = 0;
  const tokens = await Promise.all([...Array.from({ length: 50 }, () => session.getToken()), world.run(1000)]);
  assert.equal(new Set(tokens.slice(0, 50)).size, 1);
  assert.equal(world.sent.length, 1);
});

// Pain by pain: what must not sign anybody out.
const portal = (status) => ({ answer: Object.assign(problem("x", status), { raw: "<html>", headers: new Headers({ "content-type": "text/html" }) }) });
for (const [name, answer] of Object.entries({
  "429": () => ({ answer: problem("rate_limited", 429, {}, { "retry-after": "5" }) }),
  "503": () => ({ answer: problem("unavailable", 503, {}, { "retry-after": "1" }) }),
  "500": () => ({ answer: problem("internal", 500) }),
  "a portal's page": () => portal(200),
  "a portal's refusal": () => portal(401),
  "broken JSON": () => ({ answer: Object.assign(json(200, {}), { raw: '{"access_token": "tok' }) }),
  "an answer without a token": () => ({ answer: json(200, { ok: true }) }),
  "a token that is no header": () => ({ answer: json(200, { access_token: "a\nb", expires_in: 60, session: { sid: "x" } }) }),
  "a terminal code with another status": () => ({ answer: problem("session_revoked", 403) }),
  "a terminal code in a broken body": () => ({ answer: Object.assign(problem("session_revoked"), { json: () => Promise.reject(new SyntaxError("cut")) }) }),
  proof_required: () => ({ answer: problem("proof_required") }),
  credential_missing: () => ({ answer: problem("credential_missing") }),
  credential_ambiguous: () => ({ answer: problem("credential_ambiguous") }),
  "a code of the future": () => ({ answer: problem("session_moved") }),
})) {
  test(`${name} signs nobody out`, async () => {
    const { world, tab, session } = await browser();
    const first = (await timed(world, session.getToken())).value;
    let broken = true;
    answering(world, () => broken && answer());
    await world.run(35_000);
    assert.equal((await timed(world, session.getToken())).value, first, "the old token serves until it dies");
    await world.run(10 * minute);
    assert.equal(session.state.status, "refreshing-later");
    assert(world.sent.length < 40, `${world.sent.length} refreshes in ten minutes`);
    const { error, took } = await timed(world, session.getToken());
    assert.equal(error.name, "CounterfoilError");
    assert(took <= 15_000);
    broken = false;
    tab.wake("online");
    await world.run(6 * minute);
    assert.deepEqual(statuses(tab), ["signed-in", "refreshing-later", "signed-in"]);
  });
}

test("offline: the token that is at hand serves, then getToken throws, and nobody is signed out", async () => {
  const { world, tab, session } = await browser();
  world.offline = true;
  await world.run(8 * 60 * minute);
  assert.deepEqual(statuses(tab), ["signed-in", "refreshing-later"]);
  const { error, took } = await timed(world, session.getToken());
  assert.equal(error.code, "unavailable");
  assert(took <= 15_000);
  world.offline = false;
  tab.wake("online");
  await world.run(1000);
  assert.equal(session.state.status, "signed-in");
});

test("an authority that never answers: getToken settles within 15 s", async () => {
  const { world, tab, session } = await browser();
  tab.show(false);
  await world.run(61_000);
  world.weather = { hang: 1 };
  const { error, took } = await timed(world, session.getToken());
  assert.equal(error.code, "unavailable");
  assert(took > 9_000 && took <= 15_000, `${took} ms`);
});

test("Retry-After is kept, told to the other tabs, and no mistake of a proxy counts as a day", async () => {
  const { world, tabs } = await browser({ tabs: 3 });
  let until = "20";
  answering(world, () => until && { answer: problem("rate_limited", 429, {}, { "retry-after": until }) });
  await world.run(minute);
  const times = world.sent.map(({ at }) => at);
  assert(times.length <= 9, `${times.length} refreshes of three tabs in a minute`);
  until = "86400";
  await world.run(minute);
  until = undefined;
  await world.run(6 * minute);
  for (const tab of tabs) assert.equal(tab.state.status, "signed-in");
});

test("only the three codes end it, after asking again with the cookies as they are then", async () => {
  for (const code of ["session_revoked", "session_expired"]) {
    const { world, tab, session } = await browser();
    world.end(world.current, code, "password_changed");
    await world.run(minute);
    assert.equal(world.sent.length, 2);
    const { state } = session;
    assert.equal(state.status, "ended");
    assert.equal(state.code, code);
    assert.equal(state.reason, "password_changed");
    assert(Math.abs(state.endedAt - world.now / 1000) < 70);
    assert.equal((await timed(world, session.getToken())).error.code, code);
    await world.run(10 * minute);
    assert.equal(world.sent.length, 2, "nobody asks for what has ended");
    assert.deepEqual(statuses(tab), ["signed-in", "ended"]);
  }
});

test("a session that another tab replaced has not ended for this one", async () => {
  const { world, tab, session } = await browser();
  const old = world.current;
  // Another window, without signals.
  world.end(old, "session_revoked", "replaced");
  const next = world.start("bob");
  answering(world, () => {
    world.jar = next.secret; // it lands while the old cookie is being refused
  });
  await world.run(minute);
  assert.deepEqual(statuses(tab), ["signed-in", "signed-in"]);
  assert.equal(session.state.session.subject, "bob");
});

test("a first refusal without a second proves nothing", async () => {
  const { world, tab } = await browser();
  let refusals = 0;
  answering(world, () => (++refusals === 1 ? { answer: problem("session_unknown") } : refusals < 4 ? { answer: problem("internal", 500) } : undefined));
  await world.run(2 * minute);
  assert.deepEqual(statuses(tab), ["signed-in"]);
});

test("a late answer of before a sign-in changes nothing", async () => {
  const { world, tab, session } = await browser({ cookie: false });
  assert.equal(session.state.status, "signed-out");
  const times = [];
  answering(world, () => void times.push(world.now));
  world.weather = { slow: 1 };
  tab.wake("focus"); // a look around, slow, without a cookie
  await world.run(1);
  world.weather = {};
  const { value } = await timed(world, session.signIn({ email: "ada", password: "right" }));
  assert.equal(value.subject, "ada");
  await world.run(minute);
  assert.deepEqual(statuses(tab), ["signed-out", "signed-in"]);
});

for (const [email, code] of [["bob", "conflict"], ["ada", undefined]]) {
  test(`whoever waits for a token of ada's while ${email} signs in`, async () => {
    const { world, tabs } = await browser({ tabs: 2 });
    tabs[0].show(false);
    await world.run(2 * minute);
    world.weather = { hang: 1 };
    const waiting = [tabs[0].session.getToken(), tabs[0].session.fetch("/a")].map((one) => timed(world, one));
    world.weather = {};
    await timed(world, tabs[1].session.signIn({ email, password: "right" }));
    for (const { error } of await Promise.all(waiting)) assert.equal(error?.code, code);
    assert.equal(tabs[0].state.session.subject, email);
    assert.match((await timed(world, tabs[0].session.getToken())).value, /^tok-/);
  });
}

test("a step-up in another tab, whose answer is slow, ends nothing here", async () => {
  const { world, tabs } = await browser({ tabs: 2 });
  const [a, b] = tabs;
  await world.run(30_000);
  // The new secret is valid at once, and takes 10 s to arrive.
  const request = world.request.bind(world);
  world.request = (tab, input, init) => {
    const answer = request(tab, input, init);
    if (!String(input).endsWith("/step-up")) return answer;
    return answer.then((r) => {
      const jar = world.jar;
      world.jar = "sec-dead";
      return new Promise((done) => world.after(10_000, () => ((world.jar = jar), done(r))));
    });
  };
  b.session.stepUp({ password: "right" });
  await world.run(2 * minute);
  assert.deepEqual(statuses(a), ["signed-in", "signed-in"], "the second tells of the step-up");
  assert.equal(b.state.status, "signed-in");
});

test("sign-out in one tab signs out the others; of the other devices, none here", async () => {
  const { world, tabs } = await browser({ tabs: 3 });
  await timed(world, tabs[0].session.signOut("others"));
  await world.run(1000);
  assert.deepEqual(tabs.map((tab) => tab.state.status), ["signed-in", "signed-in", "signed-in"]);
  await timed(world, tabs[0].session.signOut());
  await world.run(1000);
  assert.deepEqual(tabs.map((tab) => tab.state.status), ["signed-out", "signed-out", "signed-out"]);
  assert.equal((await timed(world, tabs[1].session.getToken())).error.code, "credential_missing");
  await timed(world, tabs[1].session.signIn({ email: "ada", password: "right" }));
  await world.run(1000);
  assert.deepEqual(tabs.map((tab) => tab.state.status), ["signed-in", "signed-in", "signed-in"]);
});

test("a sign-out that did not reach the authority is none", async () => {
  const { world, tab, session } = await browser();
  world.offline = true;
  assert.equal((await timed(world, session.signOut())).error.code, "unavailable");
  world.offline = false;
  await world.run(1000);
  assert.equal(tab.state.status, "signed-in");
});

test("a page out of the back/forward cache asks before it believes", async () => {
  const { world, tab, session } = await browser();
  world.end(world.current, "session_revoked", "signed_out");
  world.jar = undefined;
  const other = world.start("bob");
  world.jar = other.secret;
  tab.wake("back");
  await world.run(1000);
  assert.equal(session.state.session.subject, "bob");
});

test("clocks: an hour fast or slow, set while running, and one that sleep stops", async () => {
  for (const ahead of [-60 * minute, 60 * minute]) {
    for (const stops of [false, true]) {
      const { world, tab, session } = await browser();
      world.stops = stops;
      world.wallAhead = ahead;
      await world.run(30 * minute);
      assert(world.sent.length < 60, `${world.sent.length} refreshes in 30 minutes`);
      assert(Math.abs(session.clockSkew - ahead / 1000) < 2, `skew ${session.clockSkew}`);
      world.sleep(20 * minute);
      await world.run(20 * minute + 1);
      const { value } = await timed(world, session.getToken());
      assert(world.tokens.get(value).exp > world.now, "after a night's sleep");
      assert.equal((await timed(world, session.fetch("/api"))).value.status, 200);
      assert.deepEqual(new Set(statuses(tab)), new Set(["signed-in"]));
    }
  }
});

test("it tells the truth about activity", async () => {
  const { world, tab } = await browser();
  const told = [];
  answering(world, (_, body) => void told.push(body.active));
  await world.run(2 * minute);
  tab.to.touch();
  await world.run(minute);
  tab.show(false);
  tab.show(true);
  await world.run(minute);
  assert.equal(told[0], false);
  assert.equal(told[1], false);
  assert.equal(told.filter((active) => active === undefined).length, 2, JSON.stringify(told));
});

test("a sign-in is activity by itself: the first refresh after it tells of none", async () => {
  const { world, tab } = await browser({ cookie: false });
  await timed(world, tab.session.signIn({ email: "ada", password: "right" }));
  const told = [];
  answering(world, (_, body) => void told.push(body.active));
  await world.run(minute);
  assert.deepEqual(told, [false]);
});

test("activity is told again when its refresh was lost", async () => {
  const { world, tab } = await browser();
  const told = [];
  answering(world, (_, body) => {
    told.push(body.active);
    return told.length < 3 ? { answer: problem("internal", 500) } : undefined;
  });
  tab.to.touch();
  await world.run(minute);
  assert.deepEqual(told.slice(0, 3), [undefined, undefined, undefined]);
});

test("a budget bounds the refreshes, whatever is asked", async () => {
  const { world, session } = await browser();
  for (let i = 0; i < 600; i++) {
    const token = (await timed(world, session.getToken())).value;
    world.tokens.delete(token); // an API that refuses everything
    session.fetch("/api").catch(() => {});
    await world.run(100);
  }
  assert(world.sent.length <= 23, `${world.sent.length} refreshes in a minute`);
});

test("with an audience, the token of a sign-in for another is never given", async () => {
  const { world, session } = await browser({ cookie: false, options: { audience: "orders" } });
  const asked = [];
  answering(world, (_, body) => void asked.push(body.audience));
  const signedIn = session.signIn({ email: "ada", password: "right" });
  await timed(world, signedIn);
  const { value } = await timed(world, session.getToken());
  assert.deepEqual(asked, ["orders"]);
  assert.match(value, /-3$/, "the second token of the session");
});

test("SEC-105: signals travel, tokens never; what is malformed is ignored", async () => {
  const { world, tabs } = await browser({ tabs: 2 });
  await timed(world, tabs[0].session.stepUp({ password: "x" }));
  await timed(world, tabs[0].session.signOut());
  assert.deepEqual([...new Set(world.signals.map((s) => s.type))].sort(), ["begin", "changed", "end", "left"]);
  await timed(world, tabs[0].session.signIn({ email: "ada", password: "right" }));
  await world.run(1000);
  for (const nonsense of [null, undefined, 1, "changed", [], {}, { type: "wait", ms: "x" }, { type: "wait", ms: NaN }, { type: "wait", ms: Infinity }, { type: "left", sid: "other" }, { type: "ended" }]) {
    tabs[1].to.signal(nonsense);
  }
  await world.run(8 * minute);
  world.sent.length = 0;
  await world.run(minute);
  assert.equal(tabs[1].state.status, "signed-in");
  assert(world.sent.some(({ tab }) => tab === tabs[1]), "it goes on");
});

test("after close nothing happens any more", async () => {
  const { world, session, tab } = await browser();
  const waiting = session.getToken();
  session.close();
  await waiting;
  world.sent.length = 0;
  await world.run(10 * minute);
  assert.equal(world.sent.length, 0);
  assert.equal(tab.timers.size, 0);
  assert.equal((await timed(world, session.getToken())).error.code, "unavailable");
});
