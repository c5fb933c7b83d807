// fetch: which requests get a token, which are repeated, and how often.
import assert from "node:assert/strict";
import { test } from "node:test";
import { browser, timed } from "./helper.mjs";
import { json, problem } from "./world.mjs";

/** An API that keeps what it was sent, and answers what the test says: (headers, number) => answer, or the world's own. */
function api(world, answer = () => undefined) {
  const got = [];
  const request = world.request.bind(world);
  world.request = (tab, input, init = {}) => {
    const url = typeof input === "string" ? input : input.url;
    if (url.includes("/auth/")) return request(tab, input, init);
    const headers = new Headers(init.headers);
    got.push({ url, headers, token: headers.get("Authorization"), body: init.body, input });
    const made = answer(headers, got.length);
    return Promise.resolve(made ?? world.api(headers));
  };
  return got;
}

test("only the configured origins get the token", async () => {
  const { world, session } = await browser({ options: { origins: ["https://app.example", "https://api.example:8443/v1"] } });
  const got = api(world, () => json(200, {}));
  for (const [url, brings] of [
    ["/orders", true],
    ["orders", true],
    ["https://app.example/orders", true],
    [new URL("https://api.example:8443/orders"), true],
    [new Request("https://api.example:8443/orders"), true],
    ["https://api.example/orders", false],
    ["https://app.example.evil.example/", false],
    ["http://app.example/", false],
    ["//evil.example/", false],
    ["https://app.example@evil.example/", false],
    ["data:text/plain,x", false],
  ]) {
    await timed(world, session.fetch(url));
    assert.equal(got.at(-1).token !== null, brings, String(url));
  }
});

test("the page's own origin is the default; an Authorization of the caller's stays", async () => {
  const { world, session } = await browser();
  const got = api(world, () => json(200, {}));
  await timed(world, session.fetch("/a"));
  assert.match(got[0].token, /^Bearer tok-/);
  await timed(world, session.fetch("/a", { headers: { Authorization: "Basic x" } }));
  assert.equal(got[1].token, "Basic x");
  await timed(world, session.fetch("https://other.example/a"));
  assert.equal(got[2].token, null);
});

test("a relative address is what it is to fetch at that moment; where the token goes does not follow the base", async () => {
  const { world, tab, session } = await browser();
  const got = api(world, () => json(200, {}));
  for (const [base, url] of [
    ["https://app.example/shop/basket", "https://app.example/shop/orders"],
    ["https://cdn.example/files/", "https://cdn.example/files/orders"],
  ]) {
    tab.base = base;
    await timed(world, session.fetch("orders"));
    assert.equal(new URL(got.at(-1).url, base).href, url);
    assert.equal(got.at(-1).token !== null, url.startsWith("https://app.example/"), base);
  }
});

test("headers and options of the caller arrive", async () => {
  const { world, session } = await browser();
  const got = api(world, () => json(200, {}));
  await timed(world, session.fetch(new Request("https://app.example/a", { headers: { "X-One": "1" } })));
  assert.equal(got[0].headers.get("X-One"), "1");
  await timed(world, session.fetch("/a", { method: "POST", body: "x", headers: [["X-Two", "2"]] }));
  assert.equal(got[1].headers.get("X-Two"), "2");
  assert.equal(got[1].body, "x");
});

for (const code of ["token_expired", "token_stale", "token_revoked", "token_too_old", "token_invalid"]) {
  test(`${code} is mended by one refresh`, async () => {
    const { world, session } = await browser();
    const got = api(world, (_, n) => (n === 1 ? problem(code) : undefined));
    const { value } = await timed(world, session.fetch("/a", { method: "POST", body: "x" }));
    assert.equal(value.status, 200);
    assert.equal(got.length, 2);
    assert.equal(got[1].body, "x");
    assert.notEqual(got[0].token, got[1].token);
    assert.equal(world.sent.length, 1);
  });
  test(`${code} again and again is not`, async () => {
    const { world, session, tab } = await browser();
    const got = api(world, () => problem(code));
    const { value } = await timed(world, session.fetch("/a"));
    assert.equal(value.status, 401);
    assert.equal((await value.json()).code, code, "the body is the caller's");
    assert.equal(got.length, 2);
    assert.equal(world.sent.length, 1);
    assert.equal(tab.state.status, "signed-in");
  });
}

test("a challenge of RFC 6750 without a problem is mended too", async () => {
  const { world, session } = await browser();
  const refusal = Object.assign(problem("x", 401, {}, { "content-type": "text/plain", "www-authenticate": 'Bearer realm="x", error="invalid_token", error_description="no"' }), { json: () => Promise.reject(new SyntaxError()) });
  const got = api(world, (_, n) => (n === 1 ? refusal : undefined));
  assert.equal((await timed(world, session.fetch("/a"))).value.status, 200);
  assert.equal(got.length, 2);
});

test("what a refresh does not mend is not tried", async () => {
  for (const refusal of [problem("insufficient_scope", 403), problem("audience_mismatch", 403), problem("credential_missing"), problem("invalid_credentials"), json(401, { error: "?" }), problem("unavailable", 503)]) {
    const { world, session } = await browser();
    const got = api(world, () => refusal);
    assert.equal((await timed(world, session.fetch("/a"))).value, refusal);
    assert.equal(got.length, 1);
    assert.equal(world.sent.length, 0);
  }
});

test("fifty requests that are refused at once share a refresh", async () => {
  const { world, session } = await browser();
  const got = api(world);
  await timed(world, session.getToken());
  world.bump("ada");
  const { value } = await timed(world, Promise.all(Array.from({ length: 50 }, () => session.fetch("/a"))));
  assert(value.every((response) => response.status === 200));
  assert.equal(got.length, 100);
  assert.equal(world.sent.length, 1);
});

test("a refresh that was sent before the rights changed is followed by another", async () => {
  const { world, session, tab } = await browser();
  api(world);
  // The one under way has read the old rights.
  const serve = world.serve.bind(world);
  world.serve = (path, cookie, body) => {
    const result = serve(path, cookie, body);
    if (world.sent.length === 1) world.bump("ada");
    return result;
  };
  tab.to.signal({ type: "check" });
  world.bump("ada");
  assert.equal((await timed(world, session.fetch("/a"))).value.status, 200);
  assert.equal(world.sent.length, 2);
});

for (const [email, status, sent] of [["bob", 401, 1], ["ada", 200, 2]]) {
  test(`a request of ada's that is refused after ${email} has signed in`, async () => {
    const { world, session } = await browser();
    let refuse;
    const got = api(world, (_, number) => (number === 1 ? new Promise((go) => (refuse = go)) : undefined));
    const call = session.fetch("/a", { method: "POST" });
    await world.run(10);
    await timed(world, session.signIn({ email, password: "right" }));
    refuse(problem("token_revoked"));
    assert.equal((await timed(world, call)).value.status, status);
    assert.equal(got.length, sent);
  });
}

test("a body that is a stream is sent once", async () => {
  const { world, session } = await browser();
  const got = api(world, () => problem("token_stale"));
  const body = new ReadableStream({ start: (c) => (c.enqueue(new TextEncoder().encode("x")), c.close()) });
  assert.equal((await timed(world, session.fetch("/a", { method: "POST", body, duplex: "half" }))).value.status, 401);
  assert.equal(got.length, 1);
});

test("a Request with a body is repeated with its body", async () => {
  const { world, session } = await browser();
  const got = api(world, (_, n) => (n === 1 ? problem("token_stale") : undefined));
  const request = new Request("https://app.example/a", { method: "POST", body: "hello" });
  assert.equal((await timed(world, session.fetch(request))).value.status, 200);
  assert.deepEqual(await Promise.all(got.map(({ input }) => input.text())), ["hello", "hello"]);
});

test("signed out: the request goes without a token, and the answer is the API's", async () => {
  const { world, session } = await browser({ cookie: false });
  const got = api(world);
  assert.equal((await timed(world, session.fetch("/a"))).value.status, 401);
  assert.equal(got[0].token, null);
  assert.equal(got.length, 1);
});

test("no token for now: fetch throws, so that nobody takes it for signed out", async () => {
  const { world, session } = await browser();
  world.offline = true;
  await world.run(5 * 60_000);
  assert.equal((await timed(world, session.fetch("/a"))).error.code, "unavailable");
});

test("the end of the session, told by an API, is found out", async () => {
  const { world, session } = await browser();
  api(world, () => problem("session_revoked"));
  world.end(world.current, "session_revoked", "revoked");
  const { value } = await timed(world, session.fetch("/a"));
  assert.equal(value.status, 401);
  assert.equal(session.state.status, "ended");
  assert.equal(session.state.reason, "revoked");
});

const weak = () => problem("insufficient_user_authentication", 401, { max_age: 600, acr_values: "phr phrh" });
const fresh = (world) => (headers) => {
  const token = world.tokens.get(headers.get("Authorization")?.slice(7));
  return token && token.session.authTime * 1000 < world.now - 600_000 ? weak() : undefined;
};

test("step-up: the user is asked once for all that wait, and each request is repeated once", async () => {
  const challenges = [];
  const made = await browser({
    options: {
      async onStepUp(challenge) {
        challenges.push(challenge);
        await made.session.stepUp({ password: "right" });
      },
    },
  });
  const { world, session } = made;
  await world.run(11 * 60_000);
  const got = api(world, fresh(world));
  const { value } = await timed(world, Promise.all(Array.from({ length: 5 }, () => session.fetch("/account", { method: "DELETE" }))));
  assert.deepEqual(value.map((r) => r.status), [200, 200, 200, 200, 200]);
  assert.deepEqual(challenges, [{ maxAge: 600, acrValues: ["phr", "phrh"] }]);
  assert.equal(got.length, 10);
  assert.equal((await timed(world, session.fetch("/account"))).value.status, 200);
  assert.equal(challenges.length, 1);
});

test("step-up: a refusal that comes after the user answered needs no second question", async () => {
  let asked = 0;
  const made = await browser({
    options: {
      async onStepUp() {
        asked++;
        await made.session.stepUp({ password: "right" });
      },
    },
  });
  const { world, session } = made;
  await world.run(11 * 60_000);
  const judge = fresh(world);
  let held;
  const got = api(world, (headers, n) => {
    const answer = judge(headers);
    return n === 1 ? new Promise((go) => (held = () => go(answer))) : answer;
  });
  const first = session.fetch("/slow");
  await world.run(10);
  assert.equal((await timed(world, session.fetch("/b"))).value.status, 200);
  held();
  assert.equal((await timed(world, first)).value.status, 200);
  assert.equal(asked, 1);
  assert.equal(got.length, 4);
});

test("step-up: false, an exception, no handler, and a proof that does not satisfy give the refusal back", async () => {
  for (const onStepUp of [() => false, () => Promise.reject(new Error("closed")), () => { throw new Error("x"); }, undefined, async () => {}]) {
    const { world, session, tab } = await browser({ options: { ...(onStepUp && { onStepUp }) } });
    const got = api(world, weak);
    const { value } = await timed(world, session.fetch("/a"));
    assert.equal(value.status, 401);
    assert.equal((await value.json()).max_age, 600);
    assert(got.length <= 2);
    assert.equal(tab.state.status, "signed-in");
  }
});
