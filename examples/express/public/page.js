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

// call refreshes once when the token is refused, and repeats.
async function call(path) {
  const ask = () => fetch(path, { headers: { Authorization: `Bearer ${accessToken}` } });
  let res = accessToken || await refresh() ? await ask() : undefined;
  if (res?.status === 401 && await refresh()) res = await ask();
  if (res) log(`${path}: ${res.status} ${await res.text()}`);
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

document.querySelector("#sign-out").addEventListener("click", async () => {
  const res = await post("/auth/sign-out", {});
  if (res.ok) accessToken = undefined;
  log(res.ok ? "signed out" : `sign-out: ${res.status}`);
});
