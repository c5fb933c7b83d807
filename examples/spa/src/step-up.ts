// The dialog that asks for a fresh proof of who the user is. The SDK calls it
// when a route wants one (RFC 9470), and repeats the blocked request after it.
import type { BrowserSession } from "@counterfoil/browser";
import { stepUpWithPasskey } from "@counterfoil/browser/passkeys";
import { begin, element, field } from "./page.js";

const dialog = element<HTMLDialogElement>("step-up");
const form = dialog.querySelector("form")!;
const fault = element("step-up-fault");
const passkey = element<HTMLButtonElement>("step-up-passkey");
const password = element("step-up-password");

/** Resolves with whether the user has confirmed. */
export async function confirmItIsYou(session: BrowserSession): Promise<boolean> {
  // In which ways this user can: a passkey, a password, or both.
  const ways = (await session.call("POST", "/step-up/begin")) as { publicKey: object | null; password: boolean };
  passkey.hidden = !ways.publicKey;
  password.hidden = !ways.password;
  form.reset();
  fault.textContent = "";

  return new Promise((done) => {
    const confirmed = async (proof: Promise<unknown>) => {
      await proof;
      dialog.close("confirmed");
    };
    passkey.onclick = () => begin(fault, passkey, () => confirmed(stepUpWithPasskey(session)));
    form.onsubmit = (event) => {
      event.preventDefault();
      begin(fault, form.querySelector("#step-up-password button")!, () => confirmed(session.stepUp({ password: field(form, "password") })));
    };
    element("step-up-cancel").onclick = () => dialog.close();
    dialog.returnValue = "";
    dialog.onclose = () => done(dialog.returnValue === "confirmed");
    dialog.showModal();
  });
}
