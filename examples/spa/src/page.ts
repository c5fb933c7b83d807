// What the other files need of the page, and of errors.
import { CounterfoilError } from "@counterfoil/browser";

/** The element with an id: index.html has them all. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found as T;
}

/** The fields of a form. */
export function field(form: HTMLElement, name: string): string {
  return String(new FormData(form as HTMLFormElement).get(name) ?? "");
}

/** Runs what a button or a form began: the button waits, and what went wrong is said in place. */
export function begin(where: HTMLElement, button: HTMLButtonElement, what: () => Promise<unknown>): void {
  where.textContent = "";
  button.disabled = true;
  what()
    .catch((error: unknown) => {
      where.textContent = sentence(error);
    })
    .finally(() => {
      button.disabled = false;
    });
}

/** Errors carry a code; what people read is ours to say. */
export function sentence(error: unknown): string {
  if (error instanceof DOMException) return "That was not done. Try again, or take the other way."; // the passkey's dialog was closed
  if (!(error instanceof CounterfoilError)) return "Something went wrong here. Try again in a moment.";
  switch (error.code) {
    case "invalid_credentials":
      return "That is not right. Try again, or take the other way.";
    case "conflict":
      return "There is an account with this address already.";
    case "invalid_request":
      return error.field === "password" ? "Take a password of 15 characters or more that is hard to guess." : "This is not a full e-mail address.";
    case "rate_limited":
      return `That was tried too often. Wait ${error.retryAfter ?? 30} seconds.`;
    case "insufficient_user_authentication":
      return "Nothing was done: it needs a confirmation that it is you.";
    default:
      return "There is no connection at the moment. Try again.";
  }
}
