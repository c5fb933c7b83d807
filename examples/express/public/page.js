// The access token lives in this variable and nowhere else; the session
// cookie is out of reach of scripts.
let accessToken;

const log = (text) => { document.querySelector("#log").prepend(`${new Date().toLocaleTimeString()}  ${text}\n`); };

const post = (path, body) => fetch(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

// refresh trades the session for a fresh access token. Only the answer that
// the session has ended signs out; offline and 503 do not.
async function refresh() {
  const res = await post("/auth/refresh", {});
  const answer = await res.json();
  if (res.ok) accessToken = answer.access_token;
  else if (answer.code?.startsWith("session_")) accessToken = undefined;
  log(res.ok ? "refreshed" : `refresh: ${answer.code}${answer.reason ? `, ${answer.reason}` : ""}`);
  return res.ok;
}

// request sends the access token, refreshes once when it is refused, and repeats.
async function request(path, options) {
  const ask = () => fetch(path, { ...options, headers: { Authorization: `Bearer ${accessToken}` } });
  let res = accessToken || await refresh() ? await ask() : undefined;
  if (res?.status === 401 && await refresh()) res = await ask();
  return res;
}

async function call(path) {
  const res = await request(path);
  if (res) log(`${path}: ${res.status} ${await res.text()}`);
}

// listen reads a stream for as long as there is a session. (EventSource can
// send no access token, so this is fetch.)
let listening = false;
async function listen() {
  if (listening) return;
  listening = true;
  let code;
  do {
    const res = await request("/events");
    if (!res?.ok) break;
    log("/events: open");
    code = await read(res.body.pipeThrough(new TextDecoderStream()));
    log(`/events: ended, ${code ?? "the connection broke"}`);
  } while (await refresh());
  listening = false;
}

// read takes events as they come, and returns why the server ended the stream.
async function read(stream) {
  let rest = "", id, expires = Infinity, ticks = 0;
  for await (const chunk of chunks(stream)) {
    const events = (rest + chunk).split("\n\n");
    rest = events.pop();
    for (const text of events) {
      const [, name, json] = /^event: (.*)\ndata: (.*)$/.exec(text);
      const data = JSON.parse(json);
      if (name === "end") return data.code;
      if (name === "open") ({ id, expires_at: expires } = data);
      if (name === "tick" && ++ticks % 10 === 0) log(`/events: ${ticks} ticks`);
      // A fresh access token in time, and the stream goes on.
      if (data.at > expires - 20 && await refresh()) {
        const res = await request(`/events/${id}`, { method: "PUT" });
        if (res?.ok) expires = (await res.json()).expires_at;
      }
    }
  }
  return undefined;
}

// chunks is what "for await" of a stream does, in every browser.
async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } catch {
    // The connection broke.
  }
}

document.querySelector("#credentials").addEventListener("submit", async (event) => {
  event.preventDefault();
  const res = await post(event.submitter.value, Object.fromEntries(new FormData(event.target)));
  const answer = await res.json();
  accessToken = answer.access_token;
  log(res.ok ? "signed in" : answer.detail);
});

for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", () => call(button.dataset.call));
}

document.querySelector("#listen").addEventListener("click", listen);

document.querySelector("#sign-out").addEventListener("click", async () => {
  const res = await post("/auth/sign-out", {});
  if (res.ok) accessToken = undefined;
  log(res.ok ? "signed out" : `sign-out: ${res.status}`);
});
