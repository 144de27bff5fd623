// What can be taken from the page: its data, the points of a chart, the command; and the theme.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { MAIN, csvOf, launch, runOf, visit } from "./pages.mjs";

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

/** Name and text of the file that a click on this button makes. */
const download = async (page, button) => {
  const [file] = await Promise.all([page.waitForEvent("download"), button.click()]);
  return { name: file.suggestedFilename(), text: await text(await file.createReadStream()) };
};

/** RFC 4180. */
const rowsOf = (csv) =>
  csv.trimEnd().split("\r\n").map((line) => [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))/g)].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain));

/**
 * Without what is not known: a file of an earlier version leaves out what the page has as `null`. Numbers to twelve digits: the page was made
 * from the file, by a reader that may be off in the seventeenth.
 */
const known = (value) => {
  if (typeof value === "number") return Number(value.toPrecision(12));
  if (Array.isArray(value)) return value.map(known);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== null).map(([key, inner]) => [key, known(inner)]));
};

describe("files", () => {
  for (const name of [MAIN, "lying-server", "crash"]) {
    it(`${name}: hold what the run's own files hold`, async () => {
      await visit(browser, name, {}, async (page) => {
        const json = await download(page, page.getByRole("button", { name: "Download JSON" }));
        assert.equal(json.name, "run.json");
        // Not told how they differ: a difference of ten thousand lines tells nobody anything.
        assert.ok(isDeepStrictEqual(known(JSON.parse(json.text)), known(runOf(name))), "the JSON is another");
        const csv = await download(page, page.getByRole("button", { name: "Download CSV" }));
        assert.equal(csv.name, "run.csv");
        assert.ok(csv.text === csvOf(name), "the CSV is another");
      });
    });
  }

  for (const [name, file] of [["gate", "gate.json"], ["comparison", "compare.json"]]) {
    it(`${name}: hold its data`, async () => {
      await visit(browser, name, {}, async (page) => {
        const json = await download(page, page.getByRole("button", { name: "Download JSON" }));
        assert.equal(json.name, file);
        assert.match(JSON.parse(json.text).schema, /\.v1$/);
        assert.equal(await page.getByRole("button", { name: "Download CSV" }).count(), 0);
      });
    });
  }

  it("of a chart hold its points, with units and of every line", async () => {
    const run = runOf(MAIN);
    await visit(browser, MAIN, {}, async (page) => {
      const figure = page.locator("figure.chart:has(> #response-p50-t)");
      const { name, text } = await download(page, figure.getByRole("button", { name: /as CSV$/ }));
      assert.equal(name, "response-p50.csv");
      const [headings, ...rows] = rowsOf(text);
      assert.deepEqual(headings, ["series", "kind", "time since the steady phase began [s]", "time [ns]", "text"]);
      for (const target of new Set(run.results.map((result) => result.target))) {
        const points = rows.filter(([series, kind]) => series === target && kind === "point").map(([, , x, y]) => [Number(x), Number(y)]);
        const expected = run.results
          .filter((result) => result.target === target)
          .flatMap((result) => result.load.intervals.map((i) => [(i.offset_ms + i.length_ms / 2) / 1000, i.response_time.p50_ns]));
        const sorted = (all) => all.map(String).sort();
        assert.deepEqual(sorted(points), sorted(expected), target);
      }
    });
  });
});

describe("the command", () => {
  it("is copied as it stands", async () => {
    const { command } = runOf(MAIN);
    await visit(browser, MAIN, { permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
      await page.getByRole("button", { name: "Copy command" }).click();
      await page.getByRole("button", { name: "Copied" }).waitFor();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command.join(" "));
    });
  });
});

describe("the theme", () => {
  const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

  it("is the reader's, or the chosen one, and stays chosen", async () => {
    await visit(browser, MAIN, { colorScheme: "dark" }, async (page) => {
      const button = page.getByRole("button", { name: "Theme: auto" });
      const dark = await background(page);
      await page.emulateMedia({ colorScheme: "light" });
      const light = await background(page);
      assert.notEqual(light, dark);
      await button.click();
      await page.getByRole("button", { name: "Theme: light" }).click();
      await page.getByRole("button", { name: "Theme: dark" }).waitFor();
      assert.equal(await background(page), dark);
      await page.reload();
      assert.equal(await background(page), dark);
      assert.equal(await page.getByRole("button", { name: "Theme: dark" }).count(), 1);
    });
  });

  it("can be chosen where nothing may be stored", async () => {
    await visit(browser, MAIN, {}, async (page, context) => {
      await context.addInitScript(() => Object.defineProperty(window, "localStorage", { get() { throw new DOMException("refused", "SecurityError"); } }));
      await page.reload();
      const before = await background(page);
      await page.getByRole("button", { name: "Theme: auto" }).click();
      await page.getByRole("button", { name: "Theme: light" }).click();
      assert.notEqual(await background(page), before);
    });
  });
});
