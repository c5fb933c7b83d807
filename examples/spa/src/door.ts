// Sign-in and sign-up, by passkey or password, and why one was signed out.
import { CounterfoilError, type State } from "@counterfoil/browser";
import { autofillSupported, passkeysSupported, signInWithPasskey, signUpWithPasskey } from "@counterfoil/browser/passkeys";
import { begin, element, field, sentence } from "./page.js";
import { session } from "./session.js";

const form = element<HTMLFormElement>("door-form");
const email = form.querySelector<HTMLInputElement>("[name=email]")!;
const password = form.querySelector<HTMLInputElement>("[name=password]")!;
const submit = form.querySelector<HTMLButtonElement>("button.main")!;
const passkey = element<HTMLButtonElement>("door-passkey");
const or = element("door-or");
const fault = element("door-fault");
let anew = false; // an account is made

function show(): void {
  element("door-title").textContent = anew ? "Create an account" : "Sign in";
  element("door-other").textContent = anew ? "I have an account" : "Create an account";
  submit.textContent = anew ? "Create the account" : "Sign in";
  passkey.textContent = anew ? "Create it with a passkey" : "Sign in with a passkey";
  password.autocomplete = anew ? "new-password" : "current-password";
  password.minLength = anew ? 15 : 0;
  passkey.hidden = or.hidden = !passkeysSupported();
  if (anew) passkey.before(email.labels![0]!); // a passkey names who signs in, but not who signs up
  else or.after(email.labels![0]!);
  fault.textContent = "";
}

element("door-other").onclick = () => {
  anew = !anew;
  show();
};

form.onsubmit = (event) => {
  event.preventDefault();
  const credentials = { email: field(form, "email"), password: field(form, "password") };
  begin(fault, submit, () => (anew ? session.signUp(credentials) : session.signIn(credentials)));
};

passkey.onclick = () => {
  if (anew && !email.reportValidity()) return; // the account is named by it
  begin(fault, passkey, () => (anew ? signUpWithPasskey(session, { email: email.value }) : signInWithPasskey(session)));
};

/** Shows the door, and says why the session is over where it is. */
export function showDoor(state: State): void {
  anew = false;
  form.reset();
  show();
  element("ended").textContent = state.status === "ended" ? why(state.code, state.reason) : "";
  void offerPasskeys();
}

function why(code: string, reason: string | undefined): string {
  if (code === "session_expired") return "You were signed out because you were away for a long time.";
  switch (reason) {
    case "signed_out":
    case "signed_out_everywhere":
      return "You were signed out from another of your devices.";
    case "password_changed":
    case "password_reset":
      return "You were signed out because the password was changed on another device.";
    case "account_disabled":
      return "This account was disabled.";
    default:
      return "You were signed out. You can sign in again.";
  }
}

// Passkeys are offered in the field of the address, until the user picks one.
async function offerPasskeys(): Promise<void> {
  if (!(await autofillSupported())) return;
  try {
    await signInWithPasskey(session, { autofill: true });
  } catch (error) {
    // Mostly another way was taken, or none was at hand: the form is still there.
    if (error instanceof CounterfoilError && error.code === "invalid_credentials") fault.textContent = sentence(error);
  }
}
