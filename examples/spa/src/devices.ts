// Where the user is signed in: each device is a session, and can be ended.
import { CounterfoilError, type Session } from "@counterfoil/browser";
import { addPasskey, passkeysSupported } from "@counterfoil/browser/passkeys";
import { begin, element } from "./page.js";
import { session } from "./session.js";
import { confirmItIsYou } from "./step-up.js";

const said = element("devices-said");
const endOthers = element<HTMLButtonElement>("end-others");
const passkey = element<HTMLButtonElement>("add-passkey");

export async function showDevices(): Promise<void> {
  const devices = await session.devices.list();
  element("devices").replaceChildren(...devices.map(row));
  endOthers.hidden = devices.length < 2;
  passkey.hidden = !passkeysSupported();
}

function row(device: Session): HTMLLIElement {
  const li = document.createElement("li");
  const about = document.createElement("div");
  const since = new Date(device.createdAt * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  about.append(nameOf(device.device.userAgent), text("p", "soft", `since ${since}, from ${device.device.ip}`));
  li.append(about);
  if (device.current) {
    li.append(text("span", "mark", "this device"));
  } else {
    const button = text("button", "ends", "End") as HTMLButtonElement;
    button.setAttribute("aria-label", `End ${nameOf(device.device.userAgent)}, since ${since}`);
    button.onclick = () => change(button, () => session.devices.end(device.sid));
    li.append(button);
  }
  return li;
}

function text(tag: string, name: string, content: string): HTMLElement {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = content;
  return made;
}

// A good name takes a library; the hosted pages have one.
function nameOf(userAgent: string): string {
  const browser = /Edg|OPR|Firefox|Chrome|Safari/.exec(userAgent)?.[0] ?? "A program";
  const system = /iPhone|iPad|Android|Windows|Mac OS|Linux/.exec(userAgent)?.[0];
  const names: Record<string, string> = { Edg: "Edge", OPR: "Opera" };
  return (names[browser] ?? browser) + (system ? ` on ${system}` : "");
}

function change(button: HTMLButtonElement, what: () => Promise<unknown>): void {
  begin(said, button, async () => {
    await what();
    await showDevices();
  });
}

endOthers.onclick = () => change(endOthers, () => session.devices.endOthers());

passkey.onclick = () =>
  begin(said, passkey, async () => {
    try {
      await addPasskey(session);
    } catch (error) {
      // These are calls of the user's, not of session.fetch: what they need is asked for here.
      const old = error instanceof CounterfoilError && error.code === "insufficient_user_authentication";
      if (!old || !(await confirmItIsYou(session))) throw error;
      await addPasskey(session);
    }
    said.textContent = "The passkey was added: you can sign in with it from now on.";
  });
