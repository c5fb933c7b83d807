/** What the script-tag file has as global `Counterfoil`. */
export * from "./index.js";
export * from "./passkeys.js";
