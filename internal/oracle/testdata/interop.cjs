// What the popular Node libraries make of our tokens, and what they make for
// us to refuse. Asks and answers are JSON on stdin and stdout.
const { createPrivateKey, createPublicKey, createSecretKey } = require("node:crypto");
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const path = require("node:path");

const packages = createRequire(path.join(process.env.COUNTERFOIL_TEST_NODE_MODULES, "package.json"));
const jsonwebtoken = packages("jsonwebtoken");
const jose = packages("jose");

// read verifies tokens as each library's documentation says, with the keys at
// jwks_uri, and returns the subjects.
async function read({ jwks_uri, issuer, audience, tokens }) {
  const remote = jose.createRemoteJWKSet(new URL(jwks_uri));
  const jwks = await (await fetch(jwks_uri)).json();
  const answers = [];
  for (const { name, alg, token } of tokens) {
    const answer = async (library, verify) => {
      try {
        answers.push({ library, name, subject: await verify() });
      } catch (error) {
        answers.push({ library, name, error: String(error) });
      }
    };
    await answer("jose", async () =>
      (await jose.jwtVerify(token, remote, { issuer, audience, algorithms: [alg], typ: "at+jwt" })).payload.sub);
    if (alg === "ES256") { // jsonwebtoken knows no EdDSA
      await answer("jsonwebtoken", async () => {
        const { header } = jsonwebtoken.decode(token, { complete: true });
        const jwk = jwks.keys.find((key) => key.kid === header.kid);
        if (!jwk || header.typ !== "at+jwt") throw new Error("another kid or typ");
        const key = createPublicKey({ key: jwk, format: "jwk" });
        return jsonwebtoken.verify(token, key, { algorithms: [alg], issuer, audience }).sub;
      });
    }
  }
  return answers;
}

// make signs each case with each library that can.
async function make({ keys, public_pem, cases }) {
  const secret = createSecretKey(Buffer.from(public_pem)); // the classic confusion: a public key as HMAC secret
  const privateKey = (name) => createPrivateKey({ key: keys[name], format: "jwk" });
  const tokens = [];
  for (const { name, header, claims, key } of cases) {
    const none = header.alg === "none";
    const jws = none
      ? new jose.UnsecuredJWT(claims).encode()
      : await new jose.SignJWT(claims).setProtectedHeader(header).sign(key === "secret" ? secret : privateKey(key));
    tokens.push({ library: "jose", name, token: jws });
    if (header.alg === "EdDSA") continue;
    const signer = none ? null : key === "secret" ? secret : privateKey(key);
    const signed = jsonwebtoken.sign(claims, signer, { algorithm: header.alg, header });
    tokens.push({ library: "jsonwebtoken", name, token: signed });
  }
  return tokens;
}

const ask = JSON.parse(readFileSync(0, "utf8"));
({ read, make })[ask.do](ask).then(
  (answer) => process.stdout.write(JSON.stringify(answer)),
  (error) => { console.error(error); process.exit(1); },
);
