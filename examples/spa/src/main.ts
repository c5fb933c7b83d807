// The page shows what the session's state says, and nothing else decides.
import type { State } from "@counterfoil/browser";
import { showDevices } from "./devices.js";
import { showDoor } from "./door.js";
import { begin, element } from "./page.js";
import { session } from "./session.js";
import { showThings } from "./things.js";

let shown = ""; // which session, or "nobody"

function show(state: State): void {
  // Refreshing later is no reason to send anybody away: they may read on.
  element("later").textContent = state.status === "refreshing-later" ? "Not connected. It is tried again." : "";
  switch (state.status) {
    case "starting":
      return;
    case "refreshing-later":
      if (state.code === "credential_missing" || state.code === "proof_required") return nobody(state); // it takes a new sign-in
      if (shown === "") element("room").hidden = false; // offline since the start
      return;
    case "signed-in":
      return somebody(state.session.sid);
    case "ended":
    case "signed-out":
      return nobody(state);
  }
}

function somebody(sid: string): void {
  if (shown === sid) return; // refreshed: nobody needs to notice
  shown = sid;
  element("door").hidden = true;
  element("room").hidden = false;
  element("sid").textContent = sid;
  element("things").replaceChildren(); // of who was here before
  showThings();
  begin(element("devices-said"), element("end-others"), showDevices);
}

function nobody(state: State): void {
  if (shown === "nobody") return;
  shown = "nobody";
  element<HTMLDialogElement>("step-up").close();
  element("room").hidden = true;
  element("things").replaceChildren(); // what only they may see
  element("devices").replaceChildren();
  element("door").hidden = false;
  showDoor(state);
}

const signOut = element<HTMLButtonElement>("sign-out");
signOut.onclick = () => begin(element("devices-said"), signOut, () => session.signOut());

session.onChange(show);
show(session.state);
