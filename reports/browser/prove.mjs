// Proves that every test of the pages can fail: breaks a page in each way that mutants.mjs lists, and expects the tests to notice.
//
//   node prove.mjs [TEXT]    TEXT: only mutants whose names contain it, and no look at whether all tests have one
//
// A mutant fails when the page no longer has what it changes, when its script could not even be read, and when a test passes that must fail,
// or fails for another reason. The whole fails when a test has no mutant, or fails on the pages as they are.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";

import { MUTANTS } from "./mutants.mjs";
import { MAIN, NAMES, pageFile, serve } from "./pages.mjs";

/** What takes longer will not come: much longer than any test waits on a page as it is. */
const PATIENCE_MS = 4000;
/** Most of a test is waiting for Chromium. */
const AT_ONCE = 3;
const [only = ""] = process.argv.slice(2);
const own = (file) => fileURLToPath(new URL(file, import.meta.url));

const browser = await serve();
const folders = mkdtempSync(join(tmpdir(), "mutants-"));

/** What became of the tests of a file that have these titles (of all without them), with these pages. */
const results = async (file, pages, titles = []) => {
  const patterns = titles.map((title) => `--test-name-pattern=^${title.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$`);
  const env = { ...process.env, MILLRACE_PAGES: pages, MILLRACE_BROWSER: browser.wsEndpoint(), MILLRACE_PATIENCE_MS: String(PATIENCE_MS) };
  const tests = spawn(process.execPath, [`--test-reporter=${own("results.mjs")}`, ...patterns, own(file)], { env, stdio: ["ignore", "pipe", "inherit"] });
  const [lines, [, signal]] = await Promise.all([text(tests.stdout), once(tests, "close")]);
  if (signal !== null) throw new Error(`${file} was ended by ${signal}`);
  return lines.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
};

/** The page with each change made once, and the policy that lets its script run as it is now. */
const broken = (page, changes) => {
  const changed = changes.reduce((whole, [from, to]) => {
    const after = whole.replace(from, () => to);
    if (after === whole) throw new Error(`the page has no ${from}`);
    return after;
  }, page);
  const [, script] = /<script id="behaviour">([\s\S]*?)<\/script>/.exec(changed);
  new Script(script);
  return changed.replace(/sha256-[^']*/, `sha256-${createHash("sha256").update(script).digest("base64")}`);
};

/** A folder with the broken pages alone, but for the main one, which every chart is looked at on, and what the pages were made of. */
const folderOf = ({ pages, changes, without = [] }, file, name) => {
  const folder = join(folders, name);
  mkdirSync(folder);
  const kept = without.length > 0 ? NAMES.filter((name) => !without.includes(name)) : file === "charts.test.mjs" ? [MAIN] : [];
  for (const name of NAMES) {
    if (pages.includes(name)) writeFileSync(join(folder, `${name}.html`), broken(readFileSync(pageFile(name), "utf8"), changes));
    else if (kept.includes(name)) symlinkSync(pageFile(name), join(folder, `${name}.html`));
    for (const ending of ["json", "csv"]) symlinkSync(pageFile(name).replace(/html$/, ending), join(folder, `${name}.${ending}`));
  }
  return folder;
};

/** What is wrong with a mutant: nothing, as it should be. */
const complaints = async (file, mutant, folder) => {
  try {
    const found = await results(file, folderOf(mutant, file, folder), Object.keys(mutant.fails));
    return Object.entries(mutant.fails).flatMap(([title, says]) => {
      const those = found.filter((result) => result.title === title);
      if (those.length === 0) return [`no test “${title}”`];
      return those.filter(({ failure }) => failure === null || !says.test(failure)).map(({ failure }) => `“${title}” ${failure === null ? "passes" : `says: ${failure}`}`);
    });
  } catch (error) {
    return [error.message];
  }
};

/** What is wrong with the tests of a file: one that fails on the pages as they are, one that no mutant makes fail. */
const unproven = async (file, mutants) => {
  const tests = await results(file, process.env.MILLRACE_PAGES);
  const killed = new Set(mutants.flatMap(({ fails }) => Object.keys(fails)));
  const failing = tests.filter(({ failure }) => failure !== null).map(({ title, failure }) => `“${title}” fails on the pages as they are: ${failure}`);
  return [...failing, ...new Set(tests.filter(({ title }) => !killed.has(title)).map(({ title }) => `“${title}” has no mutant`))];
};

const files = Object.entries(MUTANTS);
const all = files.flatMap(([file, mutants]) => mutants.map((mutant, index) => [mutant.name, () => complaints(file, mutant, `${file}-${index}`)]));
const whole = files.map(([file, mutants]) => [`${file}, unbroken: each test has one of ${mutants.length} mutants`, () => unproven(file, mutants)]);
const work = only === "" ? [...whole, ...all] : all.filter(([name]) => name.includes(only));
let wrongs = 0;
// Each takes the next one of the list they share.
const rest = work.values();
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  for (const [name, find] of rest) {
    const wrong = await find();
    wrongs += wrong.length;
    console.log([`${wrong.length === 0 ? "ok    " : "NOT OK"} ${name}`, ...wrong].join("\n         "));
  }
}));
console.log(`${work.length} looked at, ${wrongs} wrong`);

await browser.close();
rmSync(folders, { recursive: true });
process.exitCode = wrongs === 0 ? 0 : 1;
