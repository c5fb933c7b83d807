// The page of the shop. Counterfoil is the global of /counterfoil.js; sign-in,
// devices and step-up are pages of the authority under /account/.
const session = Counterfoil.createSession({ authority: "/v1/auth", watch: true, onStepUp: confirm });
const element = (id) => document.getElementById(id);

async function call(method, path, body) {
  const res = await session.fetch(path, {
    method, ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
  });
  if (!res.ok) throw new Error(`${path}: ${res.status}`);
  const { orders } = await res.json();
  element("orders").replaceChildren(...(orders.length ? orders : ["Nothing is ordered yet."]).map((what) => {
    const li = document.createElement("li");
    li.textContent = what;
    return li;
  }));
  element("bill").hidden = orders.length === 0;
}

// What the user asked for is kept for the way through the step-up page: in
// this tab, where no other site can write. It is repeated once.
const repeat = sessionStorage.getItem("repeat");
sessionStorage.removeItem("repeat");
let repeated = repeat === null;

function confirm() {
  if (!repeated) return false; // back without a confirmation: not asked again
  sessionStorage.setItem("repeat", "pay");
  location.assign("/account/step-up?next=/");
  return new Promise(() => {}); // the page is left
}

const pay = () => call("POST", "/api/orders/pay");

async function run(what, button) {
  element("fault").textContent = "";
  button.disabled = true;
  try {
    await what();
  } catch {
    element("fault").textContent = "That was not done. Try again in a moment.";
  } finally {
    button.disabled = false;
  }
}

let shown; // which session
function show(state) {
  const here = state.status === "signed-in" ? state.session.sid : shown;
  const away = ["ended", "signed-out"].includes(state.status) || ["credential_missing", "proof_required"].includes(state.code);
  element("later").textContent = state.status === "refreshing-later" ? "Not connected. It is tried again." : "";
  element("door").hidden = !away;
  element("shop").hidden = away || state.status === "starting";
  element("why").textContent = state.status === "ended" ? why(state) : "";
  if (away) {
    shown = undefined;
    element("orders").replaceChildren();
  } else if (here !== shown) {
    shown = here;
    element("sid").textContent = here;
    element("orders").replaceChildren(); // of who was here before
    run(async () => {
      await call("GET", "/api/orders");
      if (repeat === "pay" && !repeated) await pay().finally(() => { repeated = true; });
    }, element("pay"));
  }
}

function why({ code, reason }) {
  if (code === "session_expired") return "You were signed out because you were away for a long time.";
  if (/^signed_out/.test(reason)) return "You were signed out from another of your devices.";
  if (/^password/.test(reason)) return "You were signed out because the password was changed.";
  return "You were signed out. You can sign in again.";
}

element("order").addEventListener("submit", (event) => {
  event.preventDefault();
  run(async () => {
    await call("POST", "/api/orders", { what: new FormData(event.target).get("what") });
    event.target.reset();
  }, event.submitter);
});
element("pay").addEventListener("click", () => run(pay, element("pay")));
element("sign-out").addEventListener("click", () => run(() => session.signOut(), element("sign-out")));
session.onChange(show);
