// Starts an authority and one of the two applications of this folder with it:
// "node start.js server.js" or "node start.js pages.js". Ctrl-C ends both.
// Elsewhere the authority is started by whatever starts your services, once.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import "./sdk.js";

const application = process.argv[2];
const port = process.env.PORT ?? "3000";
const url = `http://localhost:${port}`; // the one host that browsers see
const folder = mkdtempSync(join(tmpdir(), "counterfoil-express-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

const counterfoil = join(folder, "counterfoil");
const database = `sqlite:${join(folder, "counterfoil.db")}`; // forgotten at the end
const here = fileURLToPath(new URL(".", import.meta.url));
execFileSync("go", ["build", "-o", counterfoil, "github.com/counterfoil/counterfoil/cmd/counterfoil"], { cwd: here, stdio: "inherit" });

const authority = spawn(
  counterfoil,
  ["serve", "--listen", "127.0.0.1:0", "--issuer", url, "--database", database, "--trusted-proxies", "127.0.0.1,::1", "--pages-name", "Ship's chandler"],
  { stdio: ["ignore", "ignore", "pipe"], detached: true }, // Ctrl-C is for this process, which tells the others
);
const running = [authority];
const end = () => running.splice(0).forEach((child) => child.kill());
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, end);
authority.on("exit", end);

let said = "";
authority.stderr.on("data", (text) => {
  process.stderr.write(text);
  said += text;
  const address = /counterfoil is ready.* listen=(http:\S+)/.exec(said)?.[1];
  if (!address || running.length !== 1) return; // not yet, started already, or ended meanwhile
  const key = execFileSync(counterfoil, ["api-key", "create", "--name", "express", "--scope", "sessions", "--scope", "verify", "--database", database], { encoding: "utf8" });
  const express = spawn(process.execPath, [application], {
    cwd: here,
    stdio: ["ignore", "inherit", "inherit"],
    detached: true,
    env: { ...process.env, COUNTERFOIL_AUTHORITY: address, COUNTERFOIL_ISSUER: url, COUNTERFOIL_API_KEY: key.trim(), PORT: port },
  });
  running.push(express);
  express.on("exit", (code) => {
    end();
    process.exitCode = code ?? 0;
  });
});
