// What the pages do with JavaScript, and could do without: passkeys, showing a
// password, taking the code out of a reset link, and sending a form again.
// Nothing is kept, and no token is ever seen here.

const find = (selector, from = document) => [...from.querySelectorAll(selector)];

// A blocked form goes on by itself once the step-up is done.
for (const form of find("form[data-go]")) HTMLFormElement.prototype.submit.call(form);

// The code of a reset link stands behind the #, where no server sees it.
for (const form of find("form[data-reset]")) {
  const code = location.hash.slice(1);
  if (!/^cf_pr_\w+$/.test(code)) continue;
  form.elements.token.value = code;
  find(".token", form)[0].hidden = true;
  history.replaceState(null, "", location.pathname);
  form.elements.new.focus();
  // It comes back behind the # when the password is not taken.
  form.addEventListener("submit", () => { form.action = `${form.getAttribute("action")}#${code}`; });
}

for (const label of find(".secret")) {
  const input = find("input", label)[0];
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Show";
  button.setAttribute("aria-label", `Show the ${label.firstChild.textContent.trim().toLowerCase()}`);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    button.textContent = shown ? "Hide" : "Show";
    button.setAttribute("aria-pressed", String(shown));
  });
  // A password manager should never meet a password in a plain field.
  input.form.addEventListener("submit", () => { input.type = "password"; });
  label.append(button);
}

// A form that was sent is not sent again by a second click.
for (const form of find("form:not([data-passkey])")) {
  form.addEventListener("submit", () => {
    for (const button of find("button", form)) queueMicrotask(() => { button.disabled = true; });
  });
}
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of find("button:disabled")) button.disabled = false;
});

// WebAuthn speaks in bytes, JSON in base64url. Browsers that translate
// themselves are asked to.
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const listed = (credentials) => credentials?.map((c) => ({ ...c, id: bytes(c.id) }));

function creation(options) {
  if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(options);
  return {
    ...options, challenge: bytes(options.challenge), user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: listed(options.excludeCredentials) ?? [],
  };
}

function request(options) {
  if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return { ...options, challenge: bytes(options.challenge), allowCredentials: listed(options.allowCredentials) ?? [] };
}

function answer(credential) {
  if (credential.toJSON) return credential.toJSON();
  const { response } = credential;
  const out = { clientDataJSON: text(response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (response[name]) out[name] = text(response[name]);
  }
  if (response.getTransports) out.transports = response.getTransports();
  return {
    id: credential.id, rawId: text(credential.rawId), type: credential.type, response: out,
    clientExtensionResults: credential.getClientExtensionResults(),
    ...(credential.authenticatorAttachment ? { authenticatorAttachment: credential.authenticatorAttachment } : {}),
  };
}

// Refused carries a sentence for the user.
class Refused extends Error {}

async function begin(purpose, email = "") {
  let response;
  try {
    response = await fetch("passkey-options", { method: "POST", body: new URLSearchParams({ for: purpose, email }) });
  } catch {
    throw new Refused("The network is not there. Try again in a moment.");
  }
  const body = await response.json().catch(() => ({}));
  if (body.publicKey) return body.publicKey;
  if (body.go) {
    location.assign(body.go);
    throw new Refused("");
  }
  throw new Refused(body.text ?? "This cannot be done right now. Try again in a moment.");
}

function why(error) {
  if (error instanceof Refused) return error.message;
  switch (error.name) {
    case "NotAllowedError": return "No passkey was used: it was cancelled, or took too long. Try again.";
    case "InvalidStateError": return "This device has a passkey for this account already.";
    case "SecurityError": return "Passkeys cannot be used at this address.";
    case "NotSupportedError": return "This device has no kind of passkey that is taken here.";
  }
  return "The browser could not do this. Try again.";
}

// One ceremony at a time: a browser refuses a second one.
let waiting;
function only() {
  waiting?.abort();
  waiting = new AbortController();
  return waiting.signal;
}

function finish(form, credential) {
  form.elements.credential.value = JSON.stringify(answer(credential));
  HTMLFormElement.prototype.submit.call(form);
}

async function run(form, purpose) {
  const said = find(".fault", form)[0];
  const buttons = find("button", form);
  said.textContent = "";
  for (const button of buttons) button.disabled = true;
  try {
    const signal = only();
    const create = purpose === "add" || purpose === "sign-up";
    const options = await begin(purpose, form.elements.email?.value);
    finish(form, await (create
      ? navigator.credentials.create({ publicKey: creation(options), signal })
      : navigator.credentials.get({ publicKey: request(options), signal })));
  } catch (error) {
    if (error.name !== "AbortError") said.textContent = why(error);
    for (const button of buttons) button.disabled = false;
    if (purpose === "sign-in") autofill(form);
  }
}

// autofill has the browser offer passkeys where the e-mail address goes.
async function autofill(form) {
  if (!await PublicKeyCredential.isConditionalMediationAvailable?.()) return;
  const signal = only();
  try {
    const options = await begin("sign-in");
    if (signal.aborted) return;
    finish(form, await navigator.credentials.get({ publicKey: request(options), mediation: "conditional", signal }));
  } catch {
    // Nobody asked for this, so nobody is told; the button is there.
  }
}

if (globalThis.PublicKeyCredential && navigator.credentials) {
  for (const hint of find("[data-no-passkey]")) hint.hidden = true;
  for (const form of find("form[data-passkey]")) {
    const purpose = form.dataset.passkey;
    form.hidden = false;
    if (purpose === "sign-up") {
      const part = find(".with-passkey", form)[0];
      part.hidden = false;
      find("button", part)[0].addEventListener("click", () => {
        if (form.elements.email.reportValidity()) run(form, purpose);
      });
      continue;
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      run(form, purpose);
    });
    if (purpose === "sign-in") autofill(form);
  }
}
