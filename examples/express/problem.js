// problem answers as the authority does (RFC 9457): clients look at code.
export function problem(res, status, code, detail) {
  res.status(status).type("application/problem+json").send(JSON.stringify({ status, code, detail }));
}
