// What a chart does: tells values, hides lines, looks closer, by mouse, keys and fingers; and draws as the page came.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";

import { assertSameDrawing } from "./drawings.mjs";
import { MAIN, assertTold, launch, open, runOf, valueOf, visit } from "./pages.mjs";

let browser;
/** The main page, for all tests that leave it as they found it. */
let main;
before(async () => {
  browser = await launch();
  main = await open(browser, MAIN);
});
after(() => browser.close());

/** Does something on the main page, which must not complain. */
const onMain = async (act) => {
  await act(main.page);
  assert.deepEqual(main.heard, []);
};

/** Scrolls to something and waits until it stays where it is: what comes near the window is laid out only then, and moves what is below it. */
const bringUp = async (locator) => {
  await locator.scrollIntoViewIfNeeded();
  await locator.evaluate(async (element) => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    for (let top; top !== element.getBoundingClientRect().top; await frame()) ({ top } = element.getBoundingClientRect());
  });
};

/** A chart of an open page, with what its figure embeds. */
const chartOf = async (page, id) => {
  const figure = page.locator(`figure.chart:has(> #${id}-t)`);
  const data = JSON.parse(await figure.locator(":scope > script").textContent());
  await bringUp(figure);
  const svg = figure.locator(".plot > svg");
  const row = (name) => page.locator(".tip p", { has: page.getByText(name, { exact: true }) }).locator("b");
  return { figure, data, svg, tip: page.locator(".tip"), row, plot: figure.locator(".plot"), entry: (name) => figure.getByRole("button", { name, exact: true }) };
};

/** Where in the window a value of x of a linear or quantile axis is, at half the height of the plot. */
const placeOf = async ({ svg, data }, x) => {
  const box = await svg.boundingBox();
  const unit = box.width / (await svg.evaluate((drawing) => drawing.viewBox.baseVal.width));
  const [left, top, right, bottom] = data.plot;
  const place = (value) => (data.x.scale === "tail" ? -Math.log10(1 - value) : value);
  const share = (place(x) - place(data.x.min)) / (place(data.x.max) - place(data.x.min));
  return [box.x + (left + share * (right - left)) * unit, box.y + ((top + bottom) / 2) * unit];
};

const hover = async (page, chart, x) => {
  await page.mouse.move(...(await placeOf(chart, x)));
  await chart.tip.waitFor({ state: "visible" });
};

const drag = async (page, chart, from, to) => {
  await page.mouse.move(...(await placeOf(chart, from)));
  await page.mouse.down();
  await page.mouse.move(...(await placeOf(chart, to)), { steps: 4 });
  await page.mouse.up();
};

const drawingOf = ({ svg }) => svg.locator("g").first().innerHTML();
const xTicks = ({ svg }) => svg.locator(".tick.middle").allTextContents();

describe("pointing at a chart", () => {
  it("tells the values of the run, with their units, of every variant and repetition", async () => {
    const run = runOf(MAIN);
    await onMain(async (page) => {
      const chart = await chartOf(page, "response-p50");
      for (const index of [2, 7]) {
        const { offset_ms, length_ms } = run.results[0].load.intervals[index];
        const x = (offset_ms + length_ms / 2) / 1000;
        await hover(page, chart, x);
        assertTold(await page.locator(".tip .at").textContent(), x * 1e9, "x");
        for (const variant of new Set(run.results.map((result) => result.target))) {
          const expected = run.results.filter((result) => result.target === variant).map((result) => result.load.intervals[index].response_time.p50_ns);
          const told = (await chart.row(variant).textContent()).split(" · ");
          assert.equal(told.length, expected.length, variant);
          told.forEach((text, i) => assertTold(text, expected[i], `${variant} #${i + 1}`));
        }
      }
    });
  });

  it("tells a quantile as the page's own table does", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "curve-response");
      await hover(page, chart, 0.99);
      assert.match(await page.locator(".tip .at").textContent(), /p99$/);
      for (const { name, markers } of chart.data.series) {
        const [, y, text] = markers.find(([q]) => q === 0.99);
        assert.equal(await chart.row(name).textContent(), text.split(": ").at(-1));
        assertTold(text.split(": ").at(-1), y, name);
      }
    });
  });

  it("marks the place, and leaves nothing behind", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "rate");
      await hover(page, chart, 5);
      assert.equal(await chart.svg.locator(".cross .hair").count(), 1);
      assert.ok((await chart.svg.locator(".cross .dot").count()) >= chart.data.series.length, "a dot on each line");
      await page.mouse.move(2, 2);
      await chart.tip.waitFor({ state: "hidden" });
      assert.equal(await chart.svg.locator(".cross > *").count(), 0);
    });
  });

  it("tells what a mark of any other drawing says, once", async () => {
    await visit(browser, "comparison", {}, async (page) => {
      const mark = page.locator("main figure svg circle:not(.dot)").nth(2);
      const title = /<circle[^>]*>\s*<title>([^<]+)/g;
      const titles = [...readFileSync(new URL(page.url()), "utf8").matchAll(title)].map(([, text]) => text);
      await bringUp(mark);
      await mark.hover();
      await page.locator(".tip").waitFor({ state: "visible" });
      assert.equal(await page.locator(".tip").textContent(), titles[2]);
      assert.equal(await page.locator("main svg title").count(), 0, "the browser would show it once more");
    });
  });
});

describe("the legend", () => {
  it("hides a variant with all its lines, its name and its values, and brings them back", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "response-p50");
      const before = await drawingOf(chart);
      const { name, style } = chart.data.series.findLast((series) => !series.is_repeat);
      const lines = chart.svg.locator(`.line.s${style}, .marker.s${style}`);
      assert.ok((await lines.count()) > 3);
      await chart.entry(name).click();
      assert.equal(await chart.entry(name).getAttribute("aria-pressed"), "false");
      assert.equal(await lines.count(), 0);
      await hover(page, chart, 5);
      assert.equal(await chart.row(name).count(), 0);
      assert.equal(await chart.row(chart.data.series.find((series) => series.name !== name).name).count(), 1);
      await chart.entry(name).click();
      assert.equal(await lines.count() > 3, true);
      assertSameDrawing(await drawingOf(chart), before);
    });
  });

  it("shows one alone after a double click, and all after another", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "rate");
      const names = chart.data.series.filter((series) => !series.is_repeat).map((series) => series.name);
      const pressed = () => chart.figure.locator(".legend button").evaluateAll((all) => all.filter((one) => one.ariaPressed === "true").map((one) => one.textContent));
      const all = await pressed();
      assert.equal(all.length, names.length + 1, "all of them and the offered rate");
      await chart.entry(names[1]).dblclick();
      assert.deepEqual(await pressed(), [names[1]]);
      await chart.entry(names[1]).dblclick();
      assert.deepEqual(await pressed(), all);
    });
  });

  it("obeys the keys", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "rate");
      const entry = chart.entry(chart.data.series.at(-1).name);
      await entry.focus();
      for (const [key, expected] of [["Space", "false"], ["Enter", "true"]]) {
        await page.keyboard.press(key);
        assert.equal(await entry.getAttribute("aria-pressed"), expected, key);
      }
    });
  });
});

describe("a drag", () => {
  it("looks at a part of x with ticks of its own, and every way back leads back", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "response-p99");
      const [before, ticks] = [await drawingOf(chart), await xTicks(chart)];
      const reset = chart.figure.getByRole("button", { name: "Reset zoom" });
      const waysBack = {
        button: () => reset.click(),
        Escape: () => chart.plot.press("Escape"),
        "double click": async () => page.mouse.dblclick(...(await placeOf(chart, 4))),
      };
      for (const [way, back] of Object.entries(waysBack)) {
        assert.equal(await reset.isVisible(), false);
        await drag(page, chart, 2, 5);
        await reset.waitFor();
        const zoomed = (await xTicks(chart)).map(valueOf).map((ns) => ns / 1e9);
        assert.ok(zoomed.length >= 3 && zoomed.every((s) => s >= 1.9 && s <= 5.1), `${way}: ${zoomed}`);
        assert.notDeepEqual(await xTicks(chart), ticks);
        await back();
        await reset.waitFor({ state: "hidden" });
        assertSameDrawing(await drawingOf(chart), before, way);
      }
    });
  });

  it("gives a quantile axis and a logarithmic one new ticks as well", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "curve-response");
      await drag(page, chart, 0.92, 0.985);
      const ticks = (await xTicks(chart)).map((text) => Number(text.slice(1)));
      assert.ok(ticks.length >= 3 && ticks.every((p) => p > 91 && p < 99), `${ticks}`);
    });
    await visit(browser, "capacity", {}, async (page) => {
      const chart = await chartOf(page, "capacity-0");
      const before = await xTicks(chart);
      await chart.plot.focus();
      for (const key of ["ArrowRight", "ArrowRight", "+", "+"]) await page.keyboard.press(key);
      const after = await xTicks(chart);
      assert.ok(after.length >= 2 && new Set(after).size === after.length, `${after}`);
      assert.notDeepEqual(after, before);
    });
  });

  it("is none when it is a click", async () => {
    await onMain(async (page) => {
      const chart = await chartOf(page, "rate");
      const before = await drawingOf(chart);
      await page.mouse.click(...(await placeOf(chart, 4)));
      assert.equal(await chart.figure.getByRole("button", { name: "Reset zoom" }).isVisible(), false);
      assert.equal(await drawingOf(chart), before);
    });
  });
});

describe("a finger", () => {
  const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

  it("reads values, within the window", async () => {
    await visit(browser, MAIN, PHONE, async (page) => {
      const chart = await chartOf(page, "rate");
      await page.touchscreen.tap(...(await placeOf(chart, 4.5)));
      await chart.tip.waitFor({ state: "visible" });
      const box = await chart.tip.boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= 390, "the tip is within the window");
      assertTold(await page.locator(".tip .at").textContent(), 4.5e9);
    });
  });

  it("moves the page up and down, and does not zoom along x", async () => {
    await visit(browser, MAIN, PHONE, async (page, context) => {
      const chart = await chartOf(page, "rate");
      const finger = await context.newCDPSession(page);
      const swipe = async ([x, y], right, down) => {
        for (const step of [0, 1, 2, 3, 4, 5]) {
          const touchPoints = [{ x: x + (right * step) / 5, y: y + (down * step) / 5 }];
          await finger.send("Input.dispatchTouchEvent", { type: step === 0 ? "touchStart" : "touchMove", touchPoints });
        }
        await finger.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
      };
      const whole = await xTicks(chart);
      await swipe(await placeOf(chart, 2), 120, 0);
      assert.deepEqual(await xTicks(chart), whole, "no zoom");
      const before = await page.evaluate(() => scrollY);
      await swipe(await placeOf(chart, 4), 0, -200);
      await page.waitForFunction((before) => scrollY > before + 50, before);
    });
  });
});

describe("the keyboard", () => {
  it("reads one value after the other, aloud as well", async () => {
    const [result] = runOf(MAIN).results;
    await onMain(async (page) => {
      const chart = await chartOf(page, "response-p50");
      await chart.plot.focus();
      const spoken = page.locator("[role=status]");
      const at = async (key) => {
        await page.keyboard.press(key);
        return valueOf((await spoken.textContent()).split("; ").find((part) => part.startsWith(result.target)).slice(result.target.length));
      };
      const expected = result.load.intervals.map((interval) => interval.response_time.p50_ns);
      for (const [key, index] of [["Home", 0], ["ArrowRight", 1], ["ArrowRight", 2], ["ArrowLeft", 1], ["End", expected.length - 1], ["ArrowRight", expected.length - 1]]) {
        const told = await at(key);
        assert.ok(Math.abs(told / expected[index] - 1) < 0.006, `${key}: ${told} is not ${expected[index]}`);
      }
      assert.equal(await chart.tip.isVisible(), true);
      await page.keyboard.press("Escape");
      assert.equal(await chart.tip.isVisible(), false);
    });
  });
});
