// A web application without users of its own: the authority has them, and its
// pages of the account too. Browsers see one host, this one. See README.md.
import { fileURLToPath } from "node:url";
import express from "express";
import { createVerifier } from "@counterfoil/node";
import { claimsOf, requireToken } from "@counterfoil/node/express";
import { apiKey, authorityURL, forwardAll, issuer } from "./counterfoil.js";
import { problem } from "./problem.js";

const verifier = await createVerifier({ issuer, audience: process.env.AUDIENCE ?? "app", authority: authorityURL, apiKey });
const orders = new Map(); // subject to what they ordered

const app = express();
app.disable("x-powered-by");

// The authority's half of this host: the pages of the account, and the calls
// of the user's device. It sets its own headers, and nothing else of it can be
// reached from outside.
app.use(forwardAll("/account/", "/v1/auth/"));

app.use((req, res, next) => {
  res.set({
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
  });
  next();
});
app.use(express.static(fileURLToPath(new URL("hosted", import.meta.url)), { cacheControl: false }));
app.get("/counterfoil.js", (req, res) => res.sendFile(fileURLToPath(import.meta.resolve("@counterfoil/browser/counterfoil.js")), { cacheControl: false }));

// The API. Tokens are verified here, and nobody is asked; a revocation is
// heard of within milliseconds.
const signedIn = requireToken(verifier);
const confirmed = requireToken(verifier, { maxAuthAge: 300 }); // who proved at most so many seconds ago who they are
const mine = (req) => orders.get(claimsOf(req).subject) ?? [];

app.get("/api/orders", signedIn, (req, res) => res.json({ orders: mine(req) }));
app.post("/api/orders", signedIn, express.json({ limit: "4kb" }), (req, res) => {
  const { what } = req.body ?? {};
  if (typeof what !== "string" || what === "" || what.length > 60) return problem(res, 400, "invalid_request", "Send {\"what\": \"…\"} of at most 60 characters.");
  orders.set(claimsOf(req).subject, [...mine(req), what].slice(-20));
  res.json({ orders: mine(req) });
});
app.post("/api/orders/pay", confirmed, (req, res) => {
  orders.delete(claimsOf(req).subject);
  res.json({ orders: [] });
});

app.use((error, req, res, next) => {
  if (res.headersSent) return next(error);
  if (error.status >= 400 && error.status < 500) return problem(res, error.status, "invalid_request", error.message);
  console.error(error.message);
  res.set("Retry-After", "1");
  problem(res, 503, "unavailable", "Try again in a moment.");
});

const server = app.listen(Number(process.env.PORT ?? 3000), "localhost", (error) => {
  if (error) throw error;
  console.log(`express on http://localhost:${server.address().port}`);
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    verifier.close();
    server.close();
    server.closeAllConnections();
  });
}
