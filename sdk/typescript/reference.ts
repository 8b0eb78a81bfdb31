/** Writes docs/typescript-reference.md from the types and their comments; with `--check` it only says whether it is current. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

const ROOT = import.meta.dir;
const TARGET = join(ROOT, "../../docs/typescript-reference.md");
const PARTS = [
  ["@buntime/sdk", "src/index.ts"],
  ["@buntime/sdk/testing", "src/testing/index.ts"],
] as const;
const HEAD = `# The TypeScript SDK: reference

Made by \`sdk/typescript/reference.ts\` from the types and their comments: change those, then run it. How to begin is in
[typescript.md](typescript.md).
`;

const config = ts.readConfigFile(join(ROOT, "tsconfig.json"), ts.sys.readFile);
const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
const program = ts.createProgram({ rootNames: PARTS.map(([, path]) => join(ROOT, path)), options });
const checker = program.getTypeChecker();

/** What is exported, in the order of the file. */
function exportsOf(path: string): ts.Symbol[] {
  const source = program.getSourceFile(join(ROOT, path))!;
  const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(source)!);
  const resolved = symbols.map((symbol) =>
    symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol,
  );
  return resolved.sort((a, b) => Number(isType(a)) - Number(isType(b)));
}

function isType(symbol: ts.Symbol): boolean {
  return (
    (symbol.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias)) !== 0 &&
    !(symbol.flags & ts.SymbolFlags.Class)
  );
}

function said(node: ts.Node): string {
  const comments = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc);
  return comments
    .map(({ comment }) => ts.getTextOfJSDocComment(comment) ?? "")
    .join(" ")
    .replace(/\s+/g, " ")
    .trim();
}

function isInternal(node: ts.Node): boolean {
  return ts.getJSDocTags(node).some(({ tagName }) => tagName.text === "internal");
}

function text(node: ts.Node): string {
  return node
    .getText()
    .replace(/\s+/g, " ")
    .replace(/(\?: [^;,}]*) \| undefined\b/g, "$1")
    .trim();
}

function signatureOf(member: ts.ClassElement | ts.TypeElement): string {
  if (ts.isMethodDeclaration(member) || ts.isConstructorDeclaration(member)) {
    const name = ts.isConstructorDeclaration(member) ? "constructor" : text(member.name);
    const parameters = member.parameters.map((parameter) => {
      const isOptional = parameter.questionToken !== undefined || parameter.initializer !== undefined;
      const type = parameter.type ? text(parameter.type) : typeOf(parameter);
      return `${text(parameter.name)}${isOptional ? "?" : ""}: ${withoutUndefined(type, isOptional)}`;
    });
    return `${name}(${parameters.join(", ")})${member.type ? `: ${text(member.type)}` : ""}`;
  }
  const { name, type, questionToken } = member as ts.PropertyDeclaration;
  const isOptional = questionToken !== undefined;
  return `${text(name)}${isOptional ? "?" : ""}: ${withoutUndefined(type ? text(type) : typeOf(member), isOptional)}`;
}

/** What `?` says already. */
function withoutUndefined(type: string, isOptional: boolean): string {
  return isOptional ? type.replace(/ \| undefined$/, "") : type;
}

function typeOf(node: ts.Node): string {
  return checker.typeToString(checker.getTypeAtLocation(node));
}

function isShown(member: ts.ClassElement | ts.TypeElement): boolean {
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  if (ts.getCombinedModifierFlags(member as ts.Declaration) & hidden || isInternal(member)) return false;
  return member.name === undefined || !ts.isPrivateIdentifier(member.name);
}

function entry(signature: string, comment: string): string {
  return `- \`${signature}\`${comment ? ` — ${comment}` : ""}`;
}

function sectionOf(symbol: ts.Symbol): string {
  const node = symbol.declarations![0]!;
  const parts = [`### \`${symbol.name}\``, said(node)];
  if (ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node)) {
    const bases = node.heritageClauses?.flatMap(({ types }) => types.map(text)) ?? [];
    if (bases.length > 0) parts.push(`Is also: ${bases.map((base) => `\`${base}\``).join(", ")}.`);
    const members = [...node.members].filter(isShown).map((member) => entry(signatureOf(member), said(member)));
    parts.push(members.join("\n"));
  } else if (ts.isTypeAliasDeclaration(node)) {
    parts.push(`\`${text(node.type).replace(/^\| /, "")}\``);
  }
  return parts.filter(Boolean).join("\n\n");
}

/** Classes of errors that say no more than their code. */
function isPlainError(symbol: ts.Symbol): boolean {
  const node = symbol.declarations![0]!;
  return ts.isClassDeclaration(node) && node.members.length === 0 && /extends BuntimeError/.test(node.getText());
}

function written(): string {
  const parts = [HEAD.trim()];
  for (const [name, path] of PARTS) {
    const symbols = exportsOf(path);
    parts.push(`## \`${name}\``);
    parts.push(...symbols.filter((symbol) => !isPlainError(symbol)).map(sectionOf));
    const errors = symbols.filter(isPlainError).map((symbol) => entry(symbol.name, said(symbol.declarations![0]!)));
    if (errors.length > 0)
      parts.push("### The other errors", "All of them extend `BuntimeError` and add nothing to it.", errors.join("\n"));
  }
  return `${parts.join("\n\n")}\n`;
}

const made = written();
if (process.argv.includes("--check")) {
  if (readFileSync(TARGET, "utf8") === made) process.exit(0);
  console.error("docs/typescript-reference.md is not current: run bun sdk/typescript/reference.ts");
  process.exit(1);
}
writeFileSync(TARGET, made);
