// One request to the page's own host, and what it told about its cost.

// call never throws: without an answer, status is 0. The token goes into the
// Authorization header; the cookie, which script cannot read, goes by itself.
export async function call(method, path, { body, token } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  const began = performance.now();
  const answer = { method, path, status: 0, code: "unavailable", body: {}, began };
  try {
    const response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", redirect: "error", signal: AbortSignal.timeout(15000),
    });
    const text = await response.text();
    const type = response.headers.get("Content-Type") ?? "";
    answer.status = response.status;
    answer.body = /[/+]json/.test(type) && text ? JSON.parse(text) : {};
    answer.code = response.ok ? "" : answer.body.code ?? "unavailable";
    answer.beganAt = Number(response.headers.get("Demo-Began")) || 0; // Unix microseconds
    answer.retryAfter = Number(response.headers.get("Retry-After")) || 0;
    const calls = response.headers.get("Demo-Authority-Calls");
    if (calls !== null) {
      answer.asked = Number(calls);
      answer.verify = Number(/dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "")?.[1] ?? 0);
    }
  } catch {
    // Offline, cut off, or no JSON: no answer that anybody could act on.
  }
  answer.ok = answer.status >= 200 && answer.status < 300;
  answer.ms = performance.now() - began;
  return answer;
}
