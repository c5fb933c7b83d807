// What a token costs: jose without a cache, this package for a token it has not seen, and for one that it has. All in one
// run, in turns, so that the ratios hold on a busy machine too. From sdk/node: npm run bench
import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT } from "jose";
import { Origins } from "../dist/origins.js";
import { parseKeySet } from "../dist/jwks.js";
import { RevocationTable } from "../dist/revocations.js";
import { systemClock } from "../dist/clock.js";
import { Verifier } from "../dist/verifier.js";

const issuer = "https://app.example";
const audience = "orders";
const brief = process.argv.includes("--brief");
const turns = brief ? 3 : 7;

async function sample(alg, count) {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  const document = { keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg, use: "sig" }] };
  const now = Math.floor(Date.now() / 1000);
  const tokens = [];
  for (let i = 0; i < count; i++) {
    const claims = { iss: issuer, sub: `user-${i}`, aud: audience, client_id: "default", sid: `4fzyo82mvyr9z0KfJ2W8${i}`, iat: now, exp: now + 290, jti: `j${i}`, auth_time: now, amr: ["pwd"], epoch: 7, roles: ["editor"], scope: "orders:read orders:write" };
    tokens.push(await new SignJWT(claims).setProtectedHeader({ alg, typ: "at+jwt", kid: "k1" }).sign(privateKey));
  }
  return { document, tokens };
}

async function verifier(document, cacheTokens) {
  const { keys } = await parseKeySet(JSON.stringify(document));
  return new Verifier({
    issuer,
    audience,
    origins: new Origins([]),
    keys: { known: (kid) => ({ key: keys.find((k) => k.kid === kid), longest: 300 }), find: () => Promise.reject(new Error("no such key")) },
    revocations: new RevocationTable(systemClock),
    ready: () => true,
    cacheTokens,
    log: { warn() {}, error() {} },
  });
}

/** Microseconds a call, over so many calls, one after the other. Each gets a text of its own, as from a request. */
async function time(calls, tokens, check) {
  const texts = Array.from({ length: calls }, (_, i) => Buffer.from(tokens[(i * 7919) % tokens.length]).toString("latin1"));
  const began = performance.now();
  for (const text of texts) await check(text);
  return ((performance.now() - began) * 1000) / calls;
}

const median = (all) => [...all].sort((a, b) => a - b)[all.length >> 1];

const rows = [];
for (const alg of ["ES256", "EdDSA"]) {
  const many = brief ? 500 : 8000;
  const { document, tokens } = await sample(alg, many);
  const bare = createLocalJWKSet(document);
  const cold = await verifier(document, 0);
  const warm = await verifier(document, 8192);
  for (const token of tokens) await warm.check(token);
  const contestants = [
    ["jose, no cache", brief ? 300 : 2000, tokens, (text) => jwtVerify(text, bare, { issuer, audience, algorithms: [alg], typ: "at+jwt", clockTolerance: 5 })],
    ["not seen before", brief ? 300 : 2000, tokens, (text) => cold.check(text)],
    ["seen before, of 100", brief ? 5000 : 40_000, tokens.slice(0, 100), (text) => warm.check(text)],
    [`seen before, of ${many}`, brief ? 5000 : 40_000, tokens, (text) => warm.check(text)],
  ];
  const times = contestants.map(() => []);
  for (let turn = 0; turn < turns + 1; turn++) {
    for (const [i, [, calls, of, check]] of contestants.entries()) {
      const us = await time(calls, of, check);
      if (turn > 0) times[i].push(us); // the first is for the compiler
    }
  }
  for (const [i, [name]] of contestants.entries()) rows.push({ alg, name, us: median(times[i]), ratio: median(times[0]) / median(times[i]) });
}
if (process.argv.includes("--json")) {
  console.log(JSON.stringify(rows));
} else {
  console.log(`node ${process.version}, medians of ${turns} turns\n`);
  for (const { alg, name, us, ratio } of rows) console.log(`${alg.padEnd(6)} ${name.padEnd(24)} ${us.toFixed(2).padStart(9)} µs  ${ratio.toFixed(1).padStart(7)} times as fast`);
}
