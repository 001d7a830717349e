// Bundle NiiVue into one module for the page, and write the licenses of all that is in it.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = "../page/vendor";
// NiiVue's package has no copy of its license.
const OWN = { "@niivue/niivue": "niivue.LICENSE" };

const { metafile } = await build({
  entryPoints: ["niivue.js"], outfile: `${OUT}/niivue.js`, bundle: true, format: "esm", minify: true, target: "es2022",
  legalComments: "none", metafile: true, logLevel: "warning",
  // Decoders (WebAssembly) of a format that the server never sends.
  external: ["numcodecs/*"],
});
const inside = Object.keys(metafile.inputs).map((path) => path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
const texts = [...new Set(inside.filter(Boolean))].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = OWN[name] ?? readdirSync(folder).filter((one) => /^licen[sc]e/i.test(one)).map((one) => `${folder}/${one}`)[0];
  const text = file === undefined ? `(its package holds no text of the license)\n` : readFileSync(file, "utf8");
  return `${name} ${version}, ${license}\n\n${text}`;
});
writeFileSync(`${OUT}/LICENSES.txt`, texts.join(`\n${"-".repeat(72)}\n\n`));
