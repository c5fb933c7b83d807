// The middleware in the frameworks, over HTTP.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { test } from "node:test";
import express from "express";
import { fastify as fastify5 } from "fastify";
import { fastify as fastify4 } from "fastify-4";
import { claimsOf, ConfigError, optionalClaimsOf, setClaims } from "@counterfoil/node";
import * as forExpress from "@counterfoil/node/express";
import * as forFastify from "@counterfoil/node/fastify";
import { Authority, following } from "./helper.mjs";

const servers = {
  async express(t, v) {
    const app = express();
    const { requireToken, optionalToken } = forExpress;
    app.get("/orders", requireToken(v), (req, res) => res.json({ sub: claimsOf(req).subject }));
    app.get("/admin", requireToken(v, { role: "admin", scope: "orders:write" }), (req, res) => res.json({ sub: claimsOf(req).subject }));
    app.get("/greeting", optionalToken(v), (req, res) => res.json({ sub: optionalClaimsOf(req)?.subject ?? null }));
    app.post("/form", requireToken(v, { cookie: true }), (req, res) => res.json({ sub: claimsOf(req).subject }));
    app.get("/forgotten", (req, res) => res.json({ sub: claimsOf(req).subject }));
    app.get("/broken", requireToken(v), () => {
      throw new Error("of the handler");
    });
    app.use((error, req, res, next) => res.status(500).json({ message: error.message }));
    return listen(t, http.createServer(app));
  },
  async connect(t, v) {
    const protect = Object.fromEntries([["/orders", {}], ["/admin", { role: "admin", scope: "orders:write" }], ["/form", { cookie: true }], ["/broken", {}]].map(([path, rules]) => [path, forExpress.requireToken(v, rules)]));
    protect["/greeting"] = forExpress.optionalToken(v);
    return listen(t, http.createServer((req, res) => {
      const fail = (error) => res.writeHead(500, { "Content-Type": "application/json" }).end(JSON.stringify({ message: error.message }));
      const handler = () => {
        if (req.url === "/broken") throw new Error("of the handler");
        const claims = req.url === "/greeting" ? optionalClaimsOf(req) : claimsOf(req);
        res.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ sub: claims?.subject ?? null }));
      };
      try {
        const middleware = protect[req.url];
        if (middleware) middleware(req, res, (error) => (error ? fail(error) : handler()));
        else handler();
      } catch (error) {
        fail(error);
      }
    }));
  },
  "fastify 5": (t, v) => onFastify(t, v, fastify5),
  "fastify 4": (t, v) => onFastify(t, v, fastify4),
};

async function onFastify(t, v, fastify) {
  const app = fastify({ forceCloseConnections: true });
  const { requireToken, optionalToken } = forFastify;
  const who = async (request) => ({ sub: claimsOf(request).subject });
  app.get("/orders", { onRequest: requireToken(v) }, who);
  app.get("/admin", { onRequest: requireToken(v, { role: "admin", scope: "orders:write" }) }, who);
  app.get("/greeting", { onRequest: optionalToken(v) }, async (request) => ({ sub: optionalClaimsOf(request)?.subject ?? null }));
  app.post("/form", { onRequest: requireToken(v, { cookie: true }) }, who);
  app.get("/forgotten", who);
  app.get("/broken", { onRequest: requireToken(v) }, async () => {
    throw new Error("of the handler");
  });
  t.after(() => app.close());
  return app.listen({ port: 0, host: "127.0.0.1" });
}

async function listen(t, server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close() && server.closeAllConnections());
  return `http://127.0.0.1:${server.address().port}`;
}

for (const [name, start] of Object.entries(servers)) {
  test(name, async (t) => {
    const a = await Authority.start(t);
    const v = await following(t, a);
    const url = await start(t, v);
    const call = async (path, headers, method = "GET") => {
      const res = await fetch(url + path, { method, headers, redirect: "error" });
      const text = await res.text();
      return { status: res.status, headers: res.headers, body: text === "" ? undefined : JSON.parse(text) };
    };
    const bearer = async (claims) => ({ Authorization: `Bearer ${await a.token(claims)}` });

    assert.deepEqual((await call("/orders", await bearer())).body, { sub: "u1" });
    assert.deepEqual((await call("/admin", await bearer({ roles: ["admin"], scope: "orders:write" }))).body, { sub: "u1" });
    assert.deepEqual((await call("/greeting", await bearer())).body, { sub: "u1" });
    assert.deepEqual((await call("/greeting")).body, { sub: null });

    const refused = await call("/orders");
    assert.equal(refused.status, 401);
    assert.equal(refused.body.code, "credential_missing");
    assert.equal(refused.headers.get("Content-Type"), "application/problem+json");
    assert.equal(refused.headers.get("WWW-Authenticate"), 'Bearer realm="counterfoil"');
    assert.equal(refused.headers.get("Cache-Control"), "no-store");
    const forbidden = await call("/admin", await bearer({ roles: ["admin"], scope: "orders:read" }));
    assert.equal(forbidden.status, 403);
    assert.equal(forbidden.body.scope, "orders:write");
    assert.match(forbidden.headers.get("WWW-Authenticate"), /scope="orders:write"/);
    for (const path of ["/orders", "/greeting"]) assert.equal((await call(path, { Authorization: "Bearer x" })).body.code, "token_invalid");
    assert.equal((await call("/orders", await bearer({ aud: "billing" }))).status, 403);

    // Two headers of one name, which node's own table of headers hides.
    const { Authorization } = await bearer();
    const { port } = new URL(url);
    const socket = net.connect(Number(port), "127.0.0.1");
    socket.end(`GET /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ${Authorization}\r\nauthorization: Bearer x\r\n\r\n`);
    let answer = "";
    for await (const chunk of socket) answer += chunk;
    assert.match(answer, /^HTTP\/1.1 401 [^]*credential_ambiguous/);

    const cookie = { Cookie: `a=b; __Host-counterfoil-at=${await a.token()}` };
    assert.equal((await call("/form", cookie, "POST")).status, 200);
    const cross = await call("/form", { ...cookie, Origin: "https://evil.example" }, "POST");
    assert.equal(cross.status, 403);
    assert.equal(cross.body.field, "Origin");
    assert.equal(cross.headers.get("WWW-Authenticate"), null);

    const forgotten = await call("/forgotten");
    assert.equal(forgotten.status, 500);
    assert.match(forgotten.body.message, /requireToken/);
    const broken = await call("/broken", await bearer());
    assert.equal(broken.status, 500);
    assert.equal(broken.body.message, "of the handler");

    const head = await fetch(`${url}/orders`, { method: "HEAD" });
    assert.equal(head.status, 401);
    assert.equal(await head.text(), "");

    assert.throws(() => (name.startsWith("fastify") ? forFastify : forExpress).requireToken(v, { roles: "admin" }), ConfigError);
  });
}

test("handlers are tested with claims of one's own", () => {
  const request = {};
  assert.equal(optionalClaimsOf(request), undefined);
  assert.throws(() => claimsOf(request), /requireToken/);
  setClaims(request, { subject: "u1" });
  assert.equal(claimsOf(request).subject, "u1");
  assert.equal(forFastify.claimsOf(request), forExpress.claimsOf(request));
});
