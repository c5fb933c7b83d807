// The authority, as this application sees it.
import http from "node:http";
import https from "node:https";

const {
  COUNTERFOIL_AUTHORITY: address = "http://127.0.0.1:8700", // where it is reached from here
  COUNTERFOIL_ISSUER: iss = address, // its public URL, which tokens name
  COUNTERFOIL_API_KEY: key, // scopes sessions and verify
} = process.env;
if (!key) throw new Error("COUNTERFOIL_API_KEY is not set: counterfoil api-key create --name express --scope sessions --scope verify");

export const issuer = iss;
export const authorityURL = address;
export const apiKey = key;
export const jwksURL = new URL(`${address}/.well-known/jwks.json`);

// authority makes a call as a backend: the API key never leaves this process.
export async function authority(method, path, body) {
  const res = await fetch(address + path, {
    method,
    headers: { Authorization: `Bearer ${apiKey}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
    redirect: "error",
    signal: AbortSignal.timeout(5000),
  });
  if (!res.ok) throw new Error(`authority: ${method} ${path}: ${res.status} ${await res.text()}`);
  return res.json();
}

export const startSession = (session) => authority("POST", "/v1/sessions", session);

// forward passes a request of the user's device on as it is, Host and cookie
// included, and the answer back. The address of the user is added; start the
// authority with --trusted-proxies and this host's address to have it believed.
export const forward = (path) => (req, res, next) => {
  const query = req.url.includes("?") ? req.url.slice(req.url.indexOf("?")) : "";
  pass(path + query, req, res, next);
};

// forwardAll does so for all that lies under one of the prefixes, at the same
// path. Dots that lead out of it, written in whatever way, are resolved first.
export const forwardAll = (...prefixes) => (req, res, next) => {
  const { pathname, search } = new URL(req.originalUrl, "http://host");
  if (!prefixes.some((prefix) => pathname.startsWith(prefix))) return next();
  pass(pathname + search, req, res, next);
};

function pass(target, req, res, next) {
  const { request } = address.startsWith("https:") ? https : http;
  const headers = { ...req.headers, "x-forwarded-for": req.socket.remoteAddress };
  delete headers.connection;
  const timeout = 40_000; // more than the 15 s between two beats of a stream
  const onward = request(address + target, { method: req.method, headers, timeout }, (answer) => {
    delete answer.headers.connection;
    res.writeHead(answer.statusCode, answer.headers);
    res.flushHeaders();
    answer.pipe(res);
  });
  onward.on("timeout", () => onward.destroy(new Error("the authority does not answer")));
  onward.on("error", next); // 503: the device keeps its session and tries again
  res.on("close", () => onward.destroy());
  req.pipe(onward);
}
