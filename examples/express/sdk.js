// Builds the two SDKs of this repository into node_modules; start.js runs it.
// An application of yours says: npm install @counterfoil/node @counterfoil/browser
import { cpSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
function fresh(name) {
  const to = path(`node_modules/@counterfoil/${name}/`);
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  cpSync(path(`../../sdk/${name}/package.json`), `${to}package.json`);
  return `${to}dist`;
}

const sources = readdirSync(path("../../sdk/node/src")).map((name) => path(`../../sdk/node/src/${name}`));
await build({ entryPoints: sources, outdir: fresh("node"), format: "esm", target: "es2022" });

const script = path("../../sdk/browser/src/script.ts");
await build({
  entryPoints: [script], outfile: `${fresh("browser")}/counterfoil.js`, bundle: true, minify: true, format: "iife", globalName: "Counterfoil", target: "es2022",
});
