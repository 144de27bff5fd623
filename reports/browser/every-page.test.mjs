// What holds for every page: it is alone, it is quick, it is complete without its script, it fits, it can be read by everybody.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, it } from "node:test";
import { pathToFileURL } from "node:url";

import { assertSameDrawing } from "./drawings.mjs";
import { MAIN, MANY_REASONS, NAMES, launch, open, pageFile, runOf, visit } from "./pages.mjs";

const BYTES_MAX = 1_500_000;
/** Loads of a page whose best is looked at. */
const LOADS = 5;
const PHONE = { viewport: { width: 390, height: 844 } };
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

const overflow = (page) =>
  page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth - clientWidth;
  });

/** What of the page is said, without what only the script says, in one line. */
const said = (page) =>
  page.evaluate(() => {
    const copy = document.body.cloneNode(true);
    for (const added of copy.querySelectorAll(".tools, .copyable > button, .tip, [role=status], script, title, desc")) added.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  });

it("there are pages of every kind", () => {
  for (const name of [MAIN, MANY_REASONS, "three-modes", "before-after", "capacity", "crash", "conform", "dead-target", "comparison", "gate", "history"]) {
    assert.ok(NAMES.includes(name), name);
  }
});

for (const name of NAMES) {
  describe(name, () => {
    let opened;
    before(async () => {
      opened = await open(browser, name);
      // What is far off the screen is not laid out until somebody comes near; here it counts as well.
      await opened.page.addStyleTag({ content: "section { content-visibility: visible !important; }" });
    });
    after(() => opened.context.close());

    it("is small, alone and silent, and as wide as the window", async () => {
      const { page, heard } = opened;
      const { size } = statSync(pageFile(name));
      assert.ok(size < BYTES_MAX, `${size} bytes`);
      for (const window of [PHONE.viewport, { width: 768, height: 1024 }, { width: 1280, height: 800 }]) {
        await page.setViewportSize(window);
        assert.equal(await overflow(page), 0, `${window.width} wide`);
      }
      assert.deepEqual(heard, []);
    });

    it("says and draws the same without its script, and has no button then", async () => {
      const drawings = (page) => page.locator("figure.chart:has(> script) svg:not(.swatch) > g:not(.cross)").evaluateAll((all) => all.map((one) => one.innerHTML));
      const { page } = opened;
      const [without, came] = await visit(browser, name, { javaScriptEnabled: false }, async (page) => {
        assert.equal(await page.locator("button, input, select, [role=application]").count(), 0);
        return [await said(page), await drawings(page)];
      });
      assert.ok(without.length > 1000, "there is something to say");
      assert.ok((await page.locator("button").count()) > 1, "the script adds buttons");
      assert.equal(await said(page), without);
      // Hiding and showing draws all of it anew.
      await page.locator("figure.chart .legend li:first-child button").evaluateAll((all) => all.forEach((one) => (one.click(), one.click())));
      const drawn = await drawings(page);
      assert.equal(drawn.length, came.length);
      drawn.forEach((drawing, i) => assertSameDrawing(drawing, came[i], `drawing ${i}`));
    });

    it("writes the numbers of axes with its script as without", async () => {
      const differing = await opened.page.evaluate(() =>
        [...document.querySelectorAll("figure.chart > script")]
          .map((data) => JSON.parse(data.textContent))
          .flatMap(({ x, y }) => [x, y].filter((axis) => !isNamed(axis)))
          .flatMap(({ unit, ticks }) => ticks.map(([value, text]) => [text, UNITS[unit](value)]))
          // 0 has a line of its own on a logarithmic axis.
          .filter(([text, again]) => text !== again && text !== "0"),
      );
      assert.deepEqual(differing, []);
    });

    it("keeps nobody out, says a reader of other people", async () => {
      const { page } = opened;
      await page.evaluate(AXE);
      // The second theme differs in nothing but its colours.
      const runs = { light: { resultTypes: ["violations"] }, dark: { resultTypes: ["violations"], runOnly: ["color-contrast"] } };
      for (const [colorScheme, options] of Object.entries(runs)) {
        await page.emulateMedia({ colorScheme });
        const { violations, passes } = await page.evaluate((options) => window.axe.run(options), options);
        const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
        assert.deepEqual(told, [], colorScheme);
        assert.ok(passes.length > 0, "it looked at something");
      }
    });
  });
}

describe("the main page", () => {
  it("is there at once: its script takes less of the processor than laying it out", async () => {
    // Processor time of the page's own thread, one part of a load against another: a busy machine stretches neither of them alone.
    const shares = [];
    for (let load = 0; load < LOADS && !shares.some((share) => share < 1); load += 1) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, offline: true });
      const page = await context.newPage();
      const devtools = await context.newCDPSession(page);
      await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
      await page.goto(pathToFileURL(pageFile(MAIN)).href);
      const { metrics } = await devtools.send("Performance.getMetrics");
      const seconds = Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
      shares.push(seconds.ScriptDuration / (seconds.LayoutDuration + seconds.RecalcStyleDuration));
      await context.close();
    }
    assert.ok(Math.min(...shares) < 1, `of laying out: ${shares.map((share) => share.toFixed(2)).join(", ")}`);
  });

  for (const name of [MAIN, MANY_REASONS]) {
    it(`${name}: answers the four questions on the first screen`, async () => {
      for (const options of [{}, PHONE]) {
        await visit(browser, name, options, async (page) => {
          assert.equal(await page.locator(".verdict").count(), 1);
          assert.deepEqual(await page.locator(".answers dt").allTextContents(), ["How fast?", "Was anything lost?", "Can I trust it?"]);
          const box = await page.locator(".answers").boundingBox();
          const { height } = page.viewportSize();
          assert.ok(box.y + box.height <= height, `answers end at ${box.y + box.height} of ${height}`);
        });
      }
    });
  }

  it("unfolds all reasons of a verdict by hand and on paper, without its script", async () => {
    const { length } = runOf(MANY_REASONS).verdict.reasons;
    const shown = (page) => page.locator(".verdict li:not(:has(li))").evaluateAll((all) => all.filter((one) => one.checkVisibility()).length);
    await visit(browser, MANY_REASONS, { javaScriptEnabled: false }, async (page) => {
      assert.ok((await shown(page)) < length, "some are folded");
      await page.emulateMedia({ media: "print" });
      assert.equal(await shown(page), length, "on paper");
      await page.emulateMedia({ media: "screen" });
      await page.locator(".verdict summary").click();
      assert.equal(await shown(page), length, "by hand");
    });
  });

  it("prints in black on white, without buttons, within the paper", async () => {
    // A4 without its margins.
    await visit(browser, MAIN, { viewport: { width: 688, height: 1000 }, colorScheme: "dark" }, async (page) => {
      await page.emulateMedia({ media: "print" });
      const colours = await page.evaluate(() => {
        const { backgroundColor, color } = getComputedStyle(document.body);
        return [backgroundColor, color];
      });
      assert.deepEqual(colours, ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]);
      assert.equal(await page.locator("button:visible").filter({ hasNot: page.locator(".swatch") }).count(), 0);
      assert.equal(await page.locator(".chart svg:visible").count() > 5, true);
      assert.equal(await overflow(page), 0);
    });
  });

  it("writes in drawings as legibly as elsewhere, and draws lines that can be seen", async () => {
    await visit(browser, MAIN, {}, async (page) => {
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const found = await page.evaluate(() => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const luminance = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          const card = luminance(getComputedStyle(document.querySelector(".chart")).backgroundColor);
          const of = (selector, property) =>
            [...document.querySelectorAll(selector)].map((shape) => [selector, getComputedStyle(shape)[property]]);
          // What is written on a part has the colour of the card.
          const all = new Map([...of(".chart svg text:not(.on)", "fill"), ...of(".chart svg .part", "fill"), ...of(".chart svg .line", "stroke"), ...of(".chart svg .marker", "fill")].map((one) => [one.join(), one]));
          return [...all.values()].map(([selector, colour]) => ({ selector, colour, ratio: ratio(luminance(colour), card) }));
        });
        assert.ok(found.length > 5);
        for (const { selector, colour, ratio } of found) {
          assert.ok(ratio >= (/text|part/.test(selector) ? 4.5 : 3), `${colorScheme}: ${selector} ${colour} has ${ratio.toFixed(2)}`);
        }
      }
    });
  });

  it("lets no other script run", async () => {
    const { page, context, heard } = await open(browser, MAIN);
    const ran = await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      return window.ran === true;
    });
    assert.equal(ran, false);
    assert.match(heard.join("\n"), /Content Security Policy/);
    await context.close();
  });
});
