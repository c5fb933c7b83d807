// Runs the vectors that the verifier in Go runs too.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { asInteger, parseJson, decodeUTF8 } from "../dist/json.js";
import { CounterfoilError, problem } from "../dist/index.js";
import { FrameReader } from "../dist/feed.js";
import { Origins } from "../dist/origins.js";
import { parseEntries, RevocationTable } from "../dist/revocations.js";
import { parseKeySet } from "../dist/jwks.js";
import { Verifier } from "../dist/verifier.js";

const folder = process.env.COUNTERFOIL_VECTORS ?? new URL("../../vectors", import.meta.url).pathname;
const load = (name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
const quiet = { warn() {}, error() {} };

async function verifier(file, c) {
  const set = await parseKeySet(JSON.stringify(file.jwks));
  const clock = { now: () => (c.now ?? file.now) * 1000, monotonic: () => 0 };
  const revocations = new RevocationTable(clock);
  revocations.apply(parseEntries(JSON.stringify(c.revocations ?? [])).entries);
  const longest = c.max_token_lifetime ?? file.max_token_lifetime ?? 3600;
  const known = (kid) => {
    const key = set.keys.find((k) => k.kid === kid);
    return key && { key, longest };
  };
  return new Verifier({
    issuer: file.issuer,
    audience: c.any_audience ? undefined : (c.audience ?? file.audience),
    algorithms: c.algorithms,
    origins: new Origins(c.trusted_origins ?? []),
    keys: {
      known,
      async find() {
        throw new CounterfoilError("token_invalid", "unknown kid");
      },
    },
    revocations,
    ask: c.live && (async () => {
      if (c.live !== "active") throw new CounterfoilError(c.live);
    }),
    ready: () => true,
    clock,
    cacheTokens: 10,
    log: quiet,
  });
}

function rules(c) {
  const names = { max_token_age: "maxTokenAge", refresh_when_old: "refreshWhenOld", max_auth_age: "maxAuthAge", role: "role", scope: "scope", live: "live", no_degraded: "noDegraded" };
  const out = c.cookie ? { cookie: true } : {};
  for (const [name, value] of Object.entries(c.rules ?? {})) out[names[name] ?? assert.fail(name)] = value;
  return out;
}

test("tokens", async (t) => {
  const file = load("tokens.json");
  const claimNames = { iss: "issuer", sub: "subject", aud: "audience", client_id: "clientId", sid: "sessionId", jti: "tokenId", iat: "issuedAt", exp: "expiresAt", auth_time: "authTime", amr: "methods", epoch: "epoch", roles: "roles", scope: "scope", degraded: "degraded" };
  const codes = new Set();
  for (const c of file.cases) {
    codes.add(c.expect.code);
    await t.test(c.name, async () => {
      let claims, refused;
      const v = await verifier(file, c);
      try {
        claims = await v.check(c.token, rules(c));
        assert.equal(await v.check(c.token, rules(c)), claims, "a token that is remembered");
      } catch (error) {
        assert(error instanceof CounterfoilError, error);
        refused = error;
        assert(c.token.length < 20 || !error.message.includes(c.token), "a token in a message");
      }
      assert.equal(refused?.code ?? "", c.expect.code, refused?.message);
      assert.deepEqual(refused?.scope, c.expect.scope);
      assert.equal(refused?.maxAge, c.expect.max_age);
      for (const [name, want] of Object.entries(c.expect.claims ?? {})) assert.deepEqual(claims[claimNames[name]], want, name);
      if (claims) assert.deepEqual(claims.payload, JSON.parse(Buffer.from(c.token.split(".")[1], "base64url")));
    });
  }
  assert(codes.size >= 12, "a code is missing");
});

test("key sets", async () => {
  for (const c of load("jwks.json").cases) {
    const set = await parseKeySet(c.document).catch((error) => error);
    assert.equal(set instanceof Error, c.refused ?? false, `${c.name}: ${set.message}`);
    if (set instanceof Error) continue;
    assert.deepEqual(set.keys.map((k) => `${k.kid} ${k.alg}`), c.keys ?? [], c.name);
    assert.equal(set.version, c.version ?? 0, c.name);
  }
});

test("documents", () => {
  const file = load("json.json");
  for (const text of file.good) assert.deepEqual(plain(parseJson(text)), JSON.parse(text), text);
  for (const text of file.bad) assert.throws(() => parseJson(text), SyntaxError, JSON.stringify(text));
  for (const [text, want] of Object.entries(file.integers.good)) assert.equal(asInteger(parseJson(`[${text}]`)[0]), Number(want));
  for (const text of file.integers.bad) assert.throws(() => asInteger(parseJson(`[${text}]`)[0]), text);
  assert.throws(() => decodeUTF8(Buffer.from([0x5b, 0xff, 0x5d])));
});

// plain is what JSON.parse makes of the same text.
function plain(v) {
  if (v instanceof Map) {
    const out = {};
    for (const [name, value] of v) Object.defineProperty(out, name, { value: plain(value), enumerable: true, configurable: true, writable: true });
    return out;
  }
  if (Array.isArray(v)) return v.map(plain);
  return v !== null && typeof v === "object" ? Number(v.text) : v;
}

test("revocations", () => {
  const file = load("revocations.json");
  for (const c of file.cases) {
    let at = 0;
    const table = new RevocationTable({ now: () => (file.now + at) * 1000, monotonic: () => 5e6 + at * 1000 });
    c.steps.forEach((s, i) => {
      at = s.at;
      const name = `${c.name}: step ${i}`;
      if (s.apply) table.apply(parseEntries(JSON.stringify(s.apply)).entries);
      if (s.ask) assert.equal(table.check({ sessionId: s.ask.sid, subject: s.ask.sub, tokenId: s.ask.jti, clientId: s.ask.client_id, epoch: s.ask.epoch }), s.want, name);
      if (s.key) assert.equal(table.keyRevoked(s.key), s.want === "revoked", name);
      if (s.size !== undefined) assert.equal(table.size, s.size, name);
    });
  }
});

test("a wall clock that is set changes nothing", () => {
  let wall = 1e12, monotonic = 0;
  const table = new RevocationTable({ now: () => wall, monotonic: () => monotonic });
  const q = { sessionId: "a", subject: "u", tokenId: "j", clientId: "c", epoch: 1 };
  table.apply(parseEntries(`[["s","a",${wall / 1000 + 60}]]`).entries);
  for (const jump of [3600e3, -7200e3]) {
    wall += jump;
    monotonic += 20e3;
    assert.equal(table.size, 1);
    assert.equal(table.check(q), "revoked");
  }
  monotonic += 20e3 + 1;
  assert.equal(table.size, 0);
});

test("feeds", () => {
  for (const c of load("feed.json").cases) {
    const stream = c.base64 ? Buffer.from(c.base64, "base64url") : Buffer.from(c.stream ?? "");
    for (const size of [1, 7, 4096, Infinity]) {
      const reader = new FrameReader();
      const frames = [];
      let failed = false;
      try {
        for (let at = 0; at < stream.length; at += size) {
          const chunk = Buffer.from(stream.subarray(at, at + size));
          for (const f of reader.push(chunk)) frames.push(shown(f));
          chunk.fill(0); // it belongs to whoever made it
        }
      } catch {
        failed = true;
      }
      assert.deepEqual(frames, c.frames, `${c.name}, chunks of ${size}`);
      assert.equal(failed, c.fails ?? false, `${c.name}, chunks of ${size}`);
    }
  }
});

function shown(f) {
  const skipped = f.skipped ? { skipped: f.skipped } : {};
  if (f.kind === "beat") return { kind: "beat", age_ms: f.beat.ageMs, now: f.beat.now, keys: f.beat.keys, node: f.beat.node, ...skipped };
  const entries = f.entries.map((e) => [
    e.kind, e.id, ...(e.kind === "u" ? [e.staleBelow] : []), ...(e.kind === "u" || e.kind === "c" ? [e.revokedBelow] : []), e.until, ...(e.except ? [e.except] : []),
  ]);
  return { kind: f.kind, ...(f.position === undefined ? {} : { position: f.position }), entries, ...skipped };
}

test("an event that is too long", () => {
  const reader = new FrameReader();
  const chunk = Buffer.alloc(1 << 16, "a");
  assert.throws(() => {
    for (let i = 0; i < 17; i++) for (const f of reader.push(chunk)) assert.fail(f);
  }, /too long/);
});

test("requests", async (t) => {
  const file = load("requests.json");
  for (const c of file.cases) {
    await t.test(c.name, async () => {
      const check = (await verifier(file, c)).requestChecker(rules(c));
      const request = { method: c.method ?? "GET", rawHeaders: c.headers.flat() };
      let sub, refused;
      try {
        sub = (await check(request)).subject;
      } catch (error) {
        refused = error;
      }
      if (c.optional && refused?.code === "credential_missing") refused = undefined;
      if (c.status === 200) {
        assert.equal(refused, undefined);
        assert.equal(sub ?? "", c.sub ?? "");
        return;
      }
      const answer = problem(refused);
      assert.equal(answer.status, c.status);
      assert.deepEqual(JSON.parse(answer.body), c.body);
      for (const [name, want] of Object.entries(c.answer)) assert.equal(answer.headers[name], want, name);
      assert.equal(answer.headers["WWW-Authenticate"], c.answer["WWW-Authenticate"]);
    });
  }
});
