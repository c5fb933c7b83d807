// Times, devices and reasons in words.

// clock tells the authority's time: the machine of the browser may be off.
export const clock = {
  offset: 0, // milliseconds
  set(serverSeconds) {
    const offset = serverSeconds * 1000 - Date.now();
    // The server's time comes in whole seconds.
    if (Math.abs(offset) > 1500) this.offset = offset;
  },
  now() { return Date.now() + this.offset; },
};

const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// span tells seconds in their greatest unit, in two while that one is small.
export function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  for (let i = 0; i < units.length; i++) {
    const [name, size] = units[i];
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size);
    if (whole >= 3) return `${Math.round(seconds / size)} ${name}`;
    const next = units[i + 1];
    const rest = next ? Math.floor(seconds % size / next[1]) : 0;
    return rest > 0 ? `${whole} ${name} ${rest} ${next[0]}` : `${whole} ${name}`;
  }
  return "0 s";
}

export function relative(unixSeconds) {
  const seconds = unixSeconds - clock.now() / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `${span(-seconds)} ago` : `in ${span(seconds)}`;
}

export function exact(unixSeconds) { return new Date(unixSeconds * 1000).toLocaleString(); }

// took tells milliseconds with as many digits as mean something.
export function took(ms) {
  if (ms >= 60000) return span(ms / 1000);
  if (ms >= 2000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 0.9995) return `${Math.round(ms * 1000)} µs`;
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

const browsers = [["Edg/", "Edge"], ["OPR/", "Opera"], ["HeadlessChrome/", "Chrome"], ["Chrome/", "Chrome"], ["Firefox/", "Firefox"], ["Safari/", "Safari"]];
const systems = [["iPhone", "iPhone"], ["iPad", "iPad"], ["Android", "Android"], ["Windows", "Windows"], ["Mac OS X", "macOS"], ["CrOS", "ChromeOS"], ["Linux", "Linux"]];

// deviceName makes "Firefox on Linux" of a User-Agent, as far as it tells.
export function deviceName(userAgent) {
  const find = (list) => list.find(([sign]) => userAgent.includes(sign))?.[1];
  const browser = find(browsers), system = find(systems);
  return browser && system ? `${browser} on ${system}` : userAgent || "unknown";
}

const reasons = {
  signed_out: "signed out on this device",
  signed_out_everywhere: "signed out from another device",
  password_changed: "the passphrase was changed",
  password_reset: "the passphrase was reset",
  account_disabled: "the account was disabled",
  account_deleted: "the account was deleted",
  revoked: "ended by the operator",
  replaced: "replaced by a new sign-in",
};

// ending says why a session ended, from the problem that said so.
export function ending(problem) {
  if (problem.code === "session_expired") return "it expired";
  if (problem.code === "session_unknown") return "the authority does not know it";
  return reasons[problem.reason] ?? (problem.reason || "revoked").replaceAll("_", " ");
}

const answers = {
  token_expired: "the token has expired",
  token_stale: "the token is stale: rights changed",
  token_revoked: "the token is revoked",
  token_too_old: "the token is too old for this route",
  token_invalid: "the token is not valid",
  insufficient_scope: "the role admin is missing",
  session_revoked: "the session has ended",
  session_expired: "the session has expired",
  session_unknown: "there is no such session",
  credential_missing: "no session cookie",
  invalid_credentials: "wrong e-mail address or passphrase",
  rate_limited: "too many attempts",
  unavailable: "the authority does not answer",
};

// meaning tells a code in words.
export function meaning(code) { return answers[code] ?? code.replaceAll("_", " "); }
