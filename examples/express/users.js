// The application's own users: in memory, to keep the example small.
import { randomBytes, randomUUID, scrypt as scryptCallback, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

const scrypt = promisify(scryptCallback);
const cost = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 };
const hash = (password, salt) => scrypt(password.normalize("NFC"), salt, 32, cost);

const ids = new Map(); // e-mail address to id
const users = new Map(); // id to { salt, hash }
const nobody = { salt: randomBytes(16), hash: randomBytes(32) };

// addUser returns the new user's id: never given to another, unlike an
// address. It returns undefined when the address has an account.
export async function addUser(email, password) {
  const salt = randomBytes(16);
  const user = { salt, hash: await hash(password, salt) };
  if (ids.has(key(email))) return undefined;
  const id = randomUUID();
  ids.set(key(email), id);
  users.set(id, user);
  return id;
}

export const userID = (email) => ids.get(key(email)) ?? "nobody";

// checkPassword takes as long for nobody as for a user. Limit how often it
// can be called before others can reach it.
export async function checkPassword(id, password) {
  const user = users.get(id) ?? nobody;
  return timingSafeEqual(await hash(password, user.salt), user.hash);
}

const key = (email) => email.trim().toLowerCase();
