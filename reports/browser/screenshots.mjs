// Writes pictures of the main page in both themes, its head and its charts with one pointed at: node screenshots.mjs FOLDER.

import { statSync } from "node:fs";
import { join } from "node:path";

import { MAIN, launch, visit } from "./pages.mjs";

const BYTES_MAX = 300_000;
const [folder] = process.argv.slice(2);

const written = (path) => {
  const { size } = statSync(path);
  if (size > BYTES_MAX) throw new Error(`${path} has ${size} bytes, at most ${BYTES_MAX} are kept`);
  console.log(path);
};

const browser = await launch();
for (const colorScheme of ["light", "dark"]) {
  await visit(browser, MAIN, { colorScheme, viewport: { width: 1280, height: 1200 } }, async (page) => {
    const [head, charts] = [`report-${colorScheme}.png`, `report-charts-${colorScheme}.png`].map((file) => join(folder, file));
    await page.screenshot({ path: head });
    written(head);
    await page.locator("#times").evaluate((section) => section.scrollIntoView());
    await page.locator("#times .plot").first().hover();
    await page.locator(".tip").waitFor({ state: "visible" });
    await page.screenshot({ path: charts });
    written(charts);
  });
}
await browser.close();
