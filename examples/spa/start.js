// Starts both halves: the Go program, and Vite in front of it. Ctrl-C ends both.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const root = fileURLToPath(new URL(".", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "spa-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const program = join(folder, process.platform === "win32" ? "server.exe" : "server");
execFileSync("go", ["build", "-o", program, "github.com/counterfoil/counterfoil/examples/spa/server"], { cwd: root, stdio: "inherit" });

const port = process.env.PORT ?? "5173";
const server = spawn(program, ["-listen", "127.0.0.1:0", "-public", `http://localhost:${port}`], { stdio: ["ignore", "pipe", "inherit"] });
server.on("exit", (code) => process.exit(code ?? 1));
server.stdout.once("data", async (line) => {
  process.env.BEHIND = /http:\S+/.exec(line)[0]; // vite.config.js reads it
  const vite = await createServer({ root });
  await vite.listen();
  console.log(`open http://localhost:${port}`);
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, async () => {
      await vite.close();
      server.kill();
    });
  }
});
