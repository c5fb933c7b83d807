import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Authority, code, following, until } from "./helper.mjs";

const path = "/oauth2/introspect";
const live = { live: true };

test("answers to a live check", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a, { withoutFeed: true, liveTimeout: 0.3 });
  const token = await a.token();
  for (const [answer, want] of [
    [{ active: true }, ""],
    [{ active: true, sid: "s1", more: 1 }, ""],
    [{ active: true, sid: "s2" }, "unavailable"],
    [{ active: false }, "token_revoked"],
    [{ active: false, cf_code: "token_stale" }, "token_stale"],
    [{ active: false, cf_code: "session_revoked" }, "session_revoked"],
    [{ active: false, cf_code: "session_expired" }, "session_expired"],
    [{ active: false, cf_code: "session_unknown" }, "session_unknown"],
    [{ active: false, cf_code: "token_expired" }, "token_expired"],
    [{ active: false, cf_code: "moon_phase" }, "token_revoked"],
    [{ active: false, cf_code: "unavailable" }, "token_revoked"],
    [{ cf_code: "token_stale" }, "unavailable"],
    [{ active: "true" }, "unavailable"],
    [{ status: 200, body: '{"active":true,"active":true}' }, "unavailable"],
    [{ status: 200, body: '{"active":true}', headers: { "Content-Type": "text/html" } }, "unavailable"],
    [{ status: 200, body: `{"active":true,"x":"${"x".repeat(300_000)}"}` }, "unavailable"],
    [{ status: 302, headers: { Location: a.url + path } }, "unavailable"],
    [{ status: 401 }, "unavailable"],
    [{ status: 500 }, "unavailable"],
    [new Promise(() => {}), "unavailable"],
  ]) {
    a.documents[path] = () => answer;
    assert.equal(await code(v.check(token, live)), want, inspect(answer).slice(0, 200));
  }
  a.documents[path] = () => ({ status: 503, headers: { "Retry-After": "7" } });
  await assert.rejects(v.check(token, live), { code: "unavailable", retryAfter: 7 });

  const asked = a.requests.at(-1);
  assert.equal(asked.method, "POST");
  assert.equal(asked.headers.authorization, "Bearer cf_sk_test");
  assert.equal(asked.body, `token=${token}`);
  assert.equal(a.asked["/v1/revocations"], undefined);
});

test("a live check joins only a question that was not sent", async (t) => {
  const a = await Authority.start(t);
  const v = await following(t, a, { withoutFeed: true });
  const token = await a.token();
  const waiting = [];
  a.documents[path] = () => new Promise((answer) => waiting.push(answer));
  const first = code(v.check(token, live));
  await until("the first question", () => waiting.length === 1);
  const others = Array.from({ length: 20 }, () => code(v.check(token, live)));
  const another = code(v.check(await a.token(), live));
  await until("the question about another token", () => waiting.length === 2);
  waiting[0]({ active: true });
  assert.equal(await first, "");
  await until("the second question", () => waiting.length === 3);
  waiting[2]({ active: false, cf_code: "session_revoked" });
  assert.deepEqual(new Set(await Promise.all(others)), new Set(["session_revoked"]), "an answer from before was used");
  waiting[1]({ active: true });
  assert.equal(await another, "");
  assert.equal(a.asked[path], 3);
});

test("the API key is not printed", async (t) => {
  const a = await Authority.start(t);
  const said = [];
  const logger = { warn: (m) => said.push(m), error: (m) => said.push(m), debug: (m) => said.push(m) };
  const v = await following(t, a, { logger });
  a.documents[path] = () => ({ status: 401 });
  const token = await a.token();
  const error = await v.check(token, live).catch((e) => e);
  const printed = inspect(v, { depth: 20, showHidden: true }) + inspect(error, { depth: 20 }) + said.join();
  assert(!printed.includes("cf_sk_test"));
  assert(!printed.includes(token));
  assert(said.some((m) => m.includes("scope verify")), said.join());
});

test("a verifier without ways to ask answers token_too_old", async (t) => {
  const a = await Authority.start(t);
  const iat = Math.floor(Date.now() / 1000) - 30;
  const token = await a.token({ iat });
  assert.equal(await code((await following(t, a, { apiKey: undefined })).check(token, { maxTokenAge: 10 })), "token_too_old");
  assert.equal(await code((await following(t, a)).check(token, { maxTokenAge: 10 })), "");
  assert.equal(a.asked[path], 1);
});
