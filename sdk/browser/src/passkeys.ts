import { named } from "./answer.js";
import { CounterfoilError } from "./errors.js";
import type { BrowserSession, Session } from "./types.js";

/** A passkey of the user. Times in Unix seconds. */
export interface Passkey {
  readonly id: string;
  readonly name: string;
  readonly createdAt: number;
  readonly lastUsedAt: number | undefined;
  /** Whether the authenticator's maker keeps a copy for the user's other devices. */
  readonly backedUp: boolean;
}

/** How long an autofill offer waits before it takes a new challenge: an authority keeps one for five minutes. */
const challengeLife = 240_000;

type Json = Record<string, any>;

/** Whether this browser knows passkeys. */
export function passkeysSupported(): boolean {
  return typeof PublicKeyCredential === "function" && !!navigator.credentials;
}

/** Whether it offers them in the autofill of a field with `autocomplete="username webauthn"`. */
export async function autofillSupported(): Promise<boolean> {
  return passkeysSupported() && !!(await PublicKeyCredential.isConditionalMediationAvailable?.());
}

// One ceremony at a time: the browser allows no second, and an autofill offer gives way to a button.
let running: AbortController | undefined;

function ceremony(signal?: AbortSignal): AbortController {
  running?.abort();
  const controller = (running = new AbortController());
  if (signal?.aborted) controller.abort(signal.reason);
  signal?.addEventListener("abort", () => controller.abort(signal.reason));
  return controller;
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
}

function text(buffer: ArrayBuffer): string {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=/g, "");
}

const withBytes = (list: Json[] | undefined) => list?.map((descriptor) => ({ ...descriptor, id: bytes(descriptor["id"]) }));

/** Options for `get`, by the browser or, where it is older than WebAuthn Level 3, by hand. */
function requestOptions(json: Json): PublicKeyCredentialRequestOptions {
  const native = PublicKeyCredential.parseRequestOptionsFromJSON as ((json: Json) => PublicKeyCredentialRequestOptions) | undefined;
  if (native) return native.call(PublicKeyCredential, json);
  return { ...json, challenge: bytes(json["challenge"]), allowCredentials: withBytes(json["allowCredentials"]) ?? [] } as unknown as PublicKeyCredentialRequestOptions;
}

function creationOptions(json: Json): PublicKeyCredentialCreationOptions {
  const native = PublicKeyCredential.parseCreationOptionsFromJSON as ((json: Json) => PublicKeyCredentialCreationOptions) | undefined;
  if (native) return native.call(PublicKeyCredential, json);
  return {
    ...json,
    challenge: bytes(json["challenge"]),
    user: { ...json["user"], id: bytes(json["user"].id) },
    excludeCredentials: withBytes(json["excludeCredentials"]) ?? [],
  } as unknown as PublicKeyCredentialCreationOptions;
}

/** The credential as JSON (WebAuthn Level 3, section 5.1.1). */
function credentialJson(credential: Credential | null): Json {
  if (!credential) throw new CounterfoilError("credential_missing", "the browser gave no passkey");
  const c = credential as PublicKeyCredential;
  if (typeof c.toJSON === "function") return c.toJSON() as Json;
  const { response } = c as unknown as { response: Json };
  const out: Json = {};
  // The members are getters of a prototype: they are not found by looking through the object.
  for (const name of ["clientDataJSON", "authenticatorData", "signature", "userHandle", "attestationObject"]) {
    if (response[name]) out[name] = text(response[name]);
  }
  if (response["getTransports"]) {
    out["transports"] = response["getTransports"]();
    out["authenticatorData"] ??= text(response["getAuthenticatorData"]());
    out["publicKeyAlgorithm"] = response["getPublicKeyAlgorithm"]();
    const key = response["getPublicKey"]();
    if (key) out["publicKey"] = text(key);
  }
  return {
    id: c.id,
    rawId: text(c.rawId),
    type: c.type,
    authenticatorAttachment: c.authenticatorAttachment ?? undefined,
    clientExtensionResults: c.getClientExtensionResults(),
    response: out,
  };
}

async function begin(session: BrowserSession, path: string, body: object = {}): Promise<Json> {
  return (await session.call("POST", path, body)) as Json;
}

const sessionOf = (answer: unknown) => (named(answer) as { session: Session }).session;

/**
 * Signs in with a passkey. With `autofill`, the browser offers passkeys in the form's autofill instead of a dialog: call it
 * when the form is shown; it settles when the user picks one, and ends when another ceremony begins. What the user
 * declines, and what is aborted, throws the browser's `NotAllowedError` or `AbortError`.
 */
export async function signInWithPasskey(session: BrowserSession, options: { autofill?: boolean; signal?: AbortSignal; clientId?: string } = {}): Promise<Session> {
  const { signal } = ceremony(options.signal);
  let credential: Credential | null | undefined;
  while (credential === undefined) {
    const { publicKey } = await begin(session, "/passkeys/sign-in/begin");
    signal.throwIfAborted();
    const offer = new AbortController();
    const abort = () => offer.abort(signal.reason);
    signal.addEventListener("abort", abort);
    const timer = options.autofill ? setTimeout(abort, challengeLife) : undefined;
    try {
      credential = await navigator.credentials.get({ publicKey: requestOptions(publicKey), signal: offer.signal, ...(options.autofill && { mediation: "conditional" }) });
    } catch (error) {
      // The challenge had grown old while nobody picked a passkey: a new one.
      if (signal.aborted || !offer.signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }
  const body = { credential: credentialJson(credential), ...(options.clientId && { client_id: options.clientId }) };
  return sessionOf(await session.call("POST", "/passkeys/sign-in", body));
}

/** Makes a user who has a passkey and no password, and signs them in. */
export async function signUpWithPasskey(session: BrowserSession, options: { email: string; signal?: AbortSignal; clientId?: string }): Promise<Session> {
  const { signal } = ceremony(options.signal);
  const { publicKey } = await begin(session, "/passkeys/sign-up/begin", { email: options.email });
  const credential = await navigator.credentials.create({ publicKey: creationOptions(publicKey), signal });
  const body = { credential: credentialJson(credential), ...(options.clientId && { client_id: options.clientId }) };
  return sessionOf(await session.call("POST", "/passkeys/sign-up", body));
}

/**
 * Adds a passkey to the user who is signed in. Throws `insufficient_user_authentication` where the user proved too long ago
 * who they are: step up, and call again.
 */
export async function addPasskey(session: BrowserSession, options: { name?: string; signal?: AbortSignal } = {}): Promise<Passkey> {
  const { signal } = ceremony(options.signal);
  const { publicKey } = await begin(session, "/passkeys/begin");
  const credential = await navigator.credentials.create({ publicKey: creationOptions(publicKey), signal });
  const body = { credential: credentialJson(credential), ...(options.name && { name: options.name }) };
  return (named(await session.call("POST", "/passkeys", body)) as { passkey: Passkey }).passkey;
}

/**
 * Proves with a passkey who the user is. Resolves with undefined where the user has none: ask for the password then, and
 * call `session.stepUp`.
 */
export async function stepUpWithPasskey(session: BrowserSession, options: { signal?: AbortSignal } = {}): Promise<Session | undefined> {
  const { signal } = ceremony(options.signal);
  const { publicKey } = await begin(session, "/step-up/begin");
  if (!publicKey) return undefined;
  return session.stepUp({ credential: credentialJson(await navigator.credentials.get({ publicKey: requestOptions(publicKey), signal })) });
}

/** The user's passkeys. Changing them asks for a recent proof of who the user is, as `addPasskey` does. */
export async function listPasskeys(session: BrowserSession): Promise<Passkey[]> {
  return (named(await session.call("GET", "/passkeys")) as { passkeys: Passkey[] }).passkeys;
}

export async function renamePasskey(session: BrowserSession, id: string, name: string): Promise<void> {
  await session.call("PATCH", `/passkeys/${encodeURIComponent(id)}`, { name });
}

/** The last way to sign in cannot be removed: `conflict`. */
export async function removePasskey(session: BrowserSession, id: string): Promise<void> {
  await session.call("DELETE", `/passkeys/${encodeURIComponent(id)}`);
}
