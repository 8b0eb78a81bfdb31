/** Makes dist/ from src/, on Node or Bun. npm runs it as `prepare` when it packs this folder or installs it. */

import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";

const here = import.meta.dirname;
const compiler = `${here}/node_modules/typescript/bin/tsc`;

function run(...command) {
  const { status, error } = spawnSync(command[0], command.slice(1), { cwd: here, stdio: ["ignore", 2, 2] });
  if (error) console.error(`${command[0]}: ${error.message}`);
  if (status !== 0) process.exit(1);
}

function installCompiler() {
  if (process.versions.bun) return run(process.execPath, "install", "--frozen-lockfile", "--ignore-scripts");
  const { npm_execpath } = process.env;
  const npm = npm_execpath?.endsWith("npm-cli.js") ? [process.execPath, npm_execpath] : ["npm"];
  run(...npm, "ci", "--prefix", here, "--global=false", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund");
}

if (!existsSync(compiler)) installCompiler(); // npm leaves out what a linked folder needs for its build
rmSync(`${here}/dist`, { recursive: true, force: true });
run(process.execPath, compiler, "-p", "tsconfig.build.json");
