// A web application with its own users and its own login. Counterfoil keeps
// the sessions; this application checks the password, and its routes verify
// the access tokens by themselves. See README.md beside it.
import { fileURLToPath } from "node:url";
import express from "express";
import { authority, forward, startSession } from "./counterfoil.js";
import { close, goOn, listen, withCounterfoil } from "./events.js";
import { problem } from "./problem.js";
import { addUser, checkPassword, userID } from "./users.js";
import { withJose, withJsonwebtoken } from "./verify.js";

const app = express();
app.disable("x-powered-by");
app.use((req, res, next) => {
  res.set({
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
  });
  next();
});
app.use(express.static(fileURLToPath(new URL("public", import.meta.url)), { cacheControl: false }));

// What the user's device asks of the authority goes through this host, since
// the session cookie is bound to it. Named one by one: no path of the backend
// API can be reached from outside.
for (const call of ["refresh", "session", "sessions", "sign-out"]) {
  app.all(`/auth/${call}`, forward(`/v1/auth/${call}`));
}

// JSON only: a form on another site cannot send it.
const json = express.json({ limit: "4kb" });

app.post("/sign-up", json, async (req, res) => {
  const { email, password } = credentials(req.body);
  if (password.length < 15) return problem(res, 400, "invalid_request", "A password must have 15 characters or more.");
  const id = await addUser(email, password);
  if (!id) return problem(res, 409, "conflict", "This e-mail address has an account already.");
  await signedIn(req, res, id);
});

app.post("/sign-in", json, async (req, res) => {
  const { email, password } = credentials(req.body);
  // For an unknown address this is an id that nobody has: the rest goes as
  // ever, and takes as long.
  const id = userID(email);
  // The epoch is read before the password is checked. If the password is
  // changed in between, the session is refused: a sign-in never outlives it.
  const { epoch } = await authority("GET", `/v1/users/${encodeURIComponent(id)}/epoch`);
  if (!(await checkPassword(id, password))) {
    return problem(res, 401, "invalid_credentials", "Wrong e-mail address or password.");
  }
  await signedIn(req, res, id, epoch);
});

async function signedIn(req, res, id, epoch) {
  const grant = await startSession({
    subject: id, epoch, amr: ["pwd"],
    device: { user_agent: req.get("User-Agent") ?? "", ip: req.socket.remoteAddress },
  });
  // The session token goes into an HttpOnly cookie, as the authority wrote
  // it, and nowhere else. The page keeps the access token in memory.
  res.set("Set-Cookie", grant.set_cookie);
  res.json({ access_token: grant.access_token, refresh_after: grant.refresh_after });
}

function credentials(body) {
  const { email, password } = body ?? {};
  if (typeof email !== "string" || typeof password !== "string" || email === "" || password.length > 256) {
    throw Object.assign(new Error("email and password are needed"), { status: 400 });
  }
  return { email, password };
}

// Two protected routes. Both verify the token here and ask nobody.
app.get("/orders", withJsonwebtoken, (req, res) => res.json({ subject: req.user.sub, orders: ["a lamp", "a rope"] }));
app.get("/profile", withJose, (req, res) => res.json({ subject: req.user.sub, signed_in: req.user.auth_time }));

// And one that stays open, until the session ends.
app.get("/events", withCounterfoil, listen);
app.put("/events/:id", withCounterfoil, goOn);

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
    close();
    server.close();
    server.closeAllConnections();
  });
}
