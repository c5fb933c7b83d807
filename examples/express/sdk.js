// Builds @counterfoil/node of this repository into node_modules; "npm start"
// runs it. An application of yours says: npm install @counterfoil/node
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import typescript from "typescript";

const from = new URL("../../sdk/node/", import.meta.url);
const to = new URL("node_modules/@counterfoil/node/", import.meta.url);
const compilerOptions = { module: typescript.ModuleKind.ES2022, target: typescript.ScriptTarget.ES2022, verbatimModuleSyntax: true };

rmSync(to, { recursive: true, force: true });
mkdirSync(new URL("dist", to), { recursive: true });
cpSync(new URL("package.json", from), new URL("package.json", to));
for (const name of readdirSync(new URL("src", from))) {
  const text = readFileSync(new URL(`src/${name}`, from), "utf8");
  const { outputText } = typescript.transpileModule(text, { compilerOptions });
  writeFileSync(new URL(`dist/${name.replace(/\.ts$/, ".js")}`, to), outputText);
}
