// What the tests share: the pages that scripts/browser has built, and Chromium without a network.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

/** Folder with a page NAME.html for each, and NAME.json and NAME.csv of those that are runs. */
const FOLDER = process.env.MILLRACE_PAGES;

/** A real run of four variants, three repetitions each: the page that most people will look at. */
export const MAIN = "modes-1000-per-s";

/** The same, with a reason to be missed for each of them. */
export const MANY_REASONS = "many-reasons";

/** Names of all pages. */
export const NAMES = readdirSync(FOLDER).filter((file) => file.endsWith(".html")).map((file) => file.replace(".html", ""));

export const pageFile = (name) => join(FOLDER, `${name}.html`);
export const runOf = (name) => JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
export const csvOf = (name) => readFileSync(join(FOLDER, `${name}.csv`), "utf8");

/** Chromium of the system, with what it would ask the network for turned off. */
const CHROMIUM = {
  executablePath: process.env.CHROMIUM,
  args: ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  // Root has no user namespace to put a sandbox in.
  chromiumSandbox: process.getuid() !== 0,
};

/** A Chromium of one's own, or the one that prove.mjs has started for many. */
export const launch = () => (process.env.MILLRACE_BROWSER ? chromium.connect(process.env.MILLRACE_BROWSER) : chromium.launch(CHROMIUM));

/** One for many: its address is in its `wsEndpoint`. */
export const serve = () => chromium.launchServer(CHROMIUM);

/**
 * Opens a page; `heard` fills with whatever it complains about and whatever it asks for beside itself.
 * Wide as a laptop unless said otherwise.
 */
export const open = async (browser, name, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, offline: true, ...options });
  context.setDefaultTimeout(Number(process.env.MILLRACE_PATIENCE_MS ?? 30_000));
  const page = await context.newPage();
  const address = pathToFileURL(pageFile(name)).href;
  const heard = [];
  page.on("console", (message) => heard.push(`console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => heard.push(`error: ${error.message}`));
  page.on("request", (request) => request.url() !== address && heard.push(`request: ${request.url()}`));
  await page.goto(address);
  return { page, context, heard };
};

/** Opens a page for `act`, and closes it. The page must not have complained. */
export const visit = async (browser, name, options, act) => {
  const { page, context, heard } = await open(browser, name, options);
  try {
    const found = await act(page, context);
    assert.deepEqual(heard, [], name);
    return found;
  } finally {
    await context.close();
  }
};

/** `412 µs`, `998/s`, `−3 %`, `1 234`: what it says, in ns, per s, shares, as it is. Of the first number in it. */
export const valueOf = (text) => {
  const [, sign, digits, unit] = /([−+]?)([\d\u202f.]+) ?(ns|µs|ms|s\b|%)?/.exec(text);
  const scale = { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9, "%": 0.01 }[unit] ?? 1;
  return (sign === "−" ? -1 : 1) * Number(digits.replaceAll("\u202f", "")) * scale;
};

/** Texts have three digits: equal within half of the third. */
export const assertTold = (text, expected, message) => {
  const told = valueOf(text);
  const allowed = Math.abs(expected) * 0.0051 + 1e-9;
  assert.ok(Math.abs(told - expected) <= allowed, `${message ?? ""} “${text}” tells ${told}, not ${expected}`);
};
