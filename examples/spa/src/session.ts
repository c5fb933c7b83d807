// One session for the page. All other files import it from here.
import { createSession } from "@counterfoil/browser";
import { confirmItIsYou } from "./step-up.js";

export const session = createSession({
  watch: true, // an end on another device shows here at once
  onStepUp: () => confirmItIsYou(session),
});
