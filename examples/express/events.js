// A stream of server-sent events. One request opens it, and it stays open for
// hours; so it is watched, and ends when the user signs out, on this device or
// another one. @counterfoil/node follows the revocations for that.
import { randomUUID } from "node:crypto";
import { createVerifier, problem as problemOf } from "@counterfoil/node";
import { requireToken, watch } from "@counterfoil/node/express";
import { apiKey, authorityURL, issuer } from "./counterfoil.js";
import { problem } from "./problem.js";

const verifier = await createVerifier({ issuer, audience: process.env.AUDIENCE ?? "app", authority: authorityURL, apiKey });
const streams = new Map(); // id to what makes an open one go on

export const withCounterfoil = requireToken(verifier);

export function listen(req, res) {
  const { signal, claims, renew, stop } = watch(req);
  const id = randomUUID();
  streams.set(id, renew);
  const send = (event, data) => res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  res.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  send("open", { id, expires_at: claims.expiresAt });
  const clock = setInterval(() => send("tick", { at: Math.floor(Date.now() / 1000) }), 1000);

  const over = () => {
    stop();
    clearInterval(clock);
    streams.delete(id);
  };
  res.on("close", over); // the page has left
  signal.addEventListener("abort", () => {
    // Why it ended tells the page what to do: refresh and come back. If the
    // session has ended, the refresh says so.
    over();
    send("end", { code: signal.reason.code });
    res.end();
  });
}

// An access token lives for a minute; the stream, for as long as the page shows
// fresh ones. It has to be of the same session.
export async function goOn(req, res) {
  const renew = streams.get(req.params.id);
  if (!renew) return problem(res, 404, "not_found", "There is no such stream.");
  try {
    const claims = await renew(req.get("Authorization").split(" ").at(-1));
    res.json({ expires_at: claims.expiresAt });
  } catch (error) {
    const { status, headers, body } = problemOf(error);
    res.status(status).set(headers).send(body);
  }
}

export const close = () => verifier.close();
