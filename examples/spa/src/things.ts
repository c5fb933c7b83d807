// The protected calls: session.fetch is fetch, with a good access token.
import { CounterfoilError, type Code } from "@counterfoil/browser";
import { begin, element, field } from "./page.js";
import { session } from "./session.js";

const form = element<HTMLFormElement>("leave");
const fault = element("things-fault");

async function call(method: string, body?: object): Promise<void> {
  const response = await session.fetch("/api/things", {
    method,
    ...(body && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
  });
  const answer = (await response.json()) as { things: string[]; code: Code };
  if (!response.ok) throw new CounterfoilError(answer.code, `/api/things: ${answer.code}`, { status: response.status });
  const { things } = answer;
  const rows = things.map((thing) => row(thing));
  element("things").replaceChildren(...(rows.length > 0 ? rows : [row("Nothing is here yet.", "none")]));
  element("take").hidden = rows.length === 0;
}

function row(text: string, name = ""): HTMLLIElement {
  const li = document.createElement("li");
  li.textContent = text;
  li.className = name;
  return li;
}

export function showThings(): void {
  begin(fault, element("collect"), () => call("GET"));
}

form.onsubmit = (event) => {
  event.preventDefault();
  begin(fault, form.querySelector("button")!, async () => {
    await call("POST", { thing: field(form, "thing") });
    form.reset();
  });
};

// The route asks for a recent proof of who the user is. Nothing is to be done
// about it here: step-up.ts is asked, and the call is repeated.
element("collect").onclick = () => begin(fault, element("collect"), () => call("DELETE"));
