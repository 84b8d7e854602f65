// Builds ../static/ from src/. The digest of the sources is written into the page, and a test compares it.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const SOURCES = new URL("src/", import.meta.url);
const TARGET = new URL("../static/", import.meta.url);

async function digestOfSources() {
  const hash = createHash("sha256");
  for (const name of (await readdir(SOURCES)).sort()) {
    hash.update(name).update("\0").update(await readFile(new URL(name, SOURCES))).update("\0");
  }
  return hash.digest("hex");
}

await mkdir(TARGET, { recursive: true });
await build({
  entryPoints: [new URL("main.ts", SOURCES).pathname, new URL("style.css", SOURCES).pathname],
  outdir: TARGET.pathname,
  entryNames: "[name]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
});
const page = await readFile(new URL("index.html", SOURCES), "utf8");
await writeFile(new URL("index.html", TARGET), page.replace("SOURCES", await digestOfSources()));
