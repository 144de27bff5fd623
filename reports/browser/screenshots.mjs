// Writes the first screen of the main page in both themes: node screenshots.mjs FOLDER.

import { statSync } from "node:fs";
import { join } from "node:path";

import { MAIN, launch, visit } from "./pages.mjs";

const BYTES_MAX = 300_000;
const [folder] = process.argv.slice(2);

const browser = await launch();
for (const colorScheme of ["light", "dark"]) {
  const path = join(folder, `report-${colorScheme}.png`);
  await visit(browser, MAIN, { colorScheme, viewport: { width: 1280, height: 1500 } }, (page) => page.screenshot({ path }));
  if (statSync(path).size > BYTES_MAX) throw new Error(`${path} has ${statSync(path).size} bytes, at most ${BYTES_MAX} are kept`);
  console.log(path);
}
await browser.close();
