// Ways to break a page, and the tests that must notice, each for its reason: prove.mjs makes them.
//
// By the file of the tests. `changes`: [text of the page (or what matches it), what stands there instead], the first such place only.
// `fails`: title of a test → what it must say. A test of every page must fail on each of `pages`.

import { MAIN, MANY_REASONS } from "./pages.mjs";

/** At the end of the style sheet, or the begin of the content. */
const style = (css) => ["</style>", `${css}</style>`];
const markup = (html) => ["<main id", `${html}<main id`];
const script = (code) => ['"use strict";', `"use strict"; ${code}`];
const on = (...pages) => (name, changes, fails) => ({ name, pages, changes, fails });
const onMain = on(MAIN);

const TELLS = "tells the values of the run, with their units, of every variant and repetition";
const QUANTILE = "tells a quantile as the page's own table does";
const MARKS = "marks the place, and leaves nothing behind";
const SHAPES = "tells what a mark of any other drawing says, once";
const HIDES = "hides a variant with all its lines, its name and its values, and brings them back";
const ALONE = "shows one alone after a double click, and all after another";
const KEYS = "obeys the keys";
const ZOOMS = "looks at a part of x with ticks of its own, and every way back leads back";
const TICKS = "gives a quantile axis and a logarithmic one new ticks as well";
const CLICK = "is none when it is a click";
const READS = "reads values, within the window";
const MOVES = "moves the page up and down, and does not zoom along x";
const ALOUD = "reads one value after the other, aloud as well";

const charts = [
  onMain("values are told too high", [["UNITS[this.data.y.unit](found.value);\n      const isUnsure", "UNITS[this.data.y.unit](found.value * 1.02);\n      const isUnsure"]], {
    [TELLS]: /tells .*, not/,
    [QUANTILE]: /Expected values to be strictly equal/,
    [ALOUD]: /Home: .* is not/,
  }),
  onMain("microseconds lose their unit", [['1e3, "µs"]', '1e3, ""]']], { [TELLS]: /“\d+ ” tells/ }),
  onMain("the place is told wrong", [["at: textOf(this.data.x, x)", "at: textOf(this.data.x, x * 1.02)"]], { [TELLS]: /^x “/, [QUANTILE]: /match.*p99/s, [READS]: /“/ }),
  onMain("one repetition of several is told", [["shown.filter((series) => series.name === name)", "shown.filter((series) => series.name === name).slice(0, 1)"]], { [TELLS]: /1 !== 3/ }),
  onMain("no hair", [['path("hair",', 'path("hare",']], { [MARKS]: /0 !== 1/ }),
  onMain("no dots", [["...dots.map(", "...[].map("]], { [MARKS]: /a dot on each line/ }),
  onMain("the cross stays", [["leave() {\n    this.cross.replaceChildren();", "leave() {"]], { [MARKS]: /!== 0/ }),
  onMain("the tip stays", [["tip.hidden = true;", ""]], { [MARKS]: /waiting for .*tip/s, [ALOUD]: /true !== false/ }),
  on("comparison")("a mark is told without its first line", [['this.texts.get(shape).split("\\n")', 'this.texts.get(shape).split("\\n").slice(1)']], { [SHAPES]: /strictly equal/ }),
  on("comparison")("the browser tells marks as well", [["for (const title of titles) title.remove();\n    // The drawing's", "// The drawing's"]], { [SHAPES]: /once more/ }),
  onMain("an entry of the legend hides nothing", [["this.hidden.add(key);", ";"]], { [HIDES]: /'true'/, [KEYS]: /Space/ }),
  onMain("an entry of the legend changes itself alone", [["return this.series.filter((series) => !this.hidden.has(series.name));", "return this.series;"]], { [HIDES]: /!== 0/ }),
  onMain("hidden values are told", [["const shown = this.shown().toReversed();", "const shown = this.series.toReversed();"]], { [HIDES]: /1 !== 0/ }),
  onMain("hiding one ends all values", [["rows: rows.filter(({ told }) => told.length > 0)", "rows: rows.filter(({ told }) => told.length > 0 && this.hidden.size === 0)"]], { [HIDES]: /0 !== 1/ }),
  onMain("what is hidden stays hidden", [["if (!this.hidden.delete(key)) this.hidden", "this.hidden"]], { [HIDES]: /false !== true/, [KEYS]: /Enter/ }),
  onMain("names are drawn anew at other places", [['label("tick", this.right + 6, y + 4', 'label("tick", this.right + 6, y + 6']], { [HIDES]: /tick/, [ZOOMS]: /button .*tick/ }),
  onMain("a double click isolates nothing", [["this.hidden = new Set(isAlone ? [] : others);", ""]], { [ALONE]: /deep/ }),
  onMain("nothing leads back from one alone", [["isAlone ? [] : others", "others"]], { [ALONE]: /deep/ }),
  onMain("the level is in no legend", [["this.level ? [...named, LEVEL] : named", "named"]], { [ALONE]: /all of them and the offered rate/ }),
  onMain("buttons know the mouse alone", [['made.addEventListener("click", act)', 'made.addEventListener("mousedown", act)']], { [KEYS]: /Space/ }),
  onMain("a drag zooms to all", [["this.zoom = range;", "this.zoom = null;"]], { [ZOOMS]: /button: 0/, [TICKS]: /^[\d.,]+$/ }),
  onMain("a zoom keeps the ticks", [["ticks: isNamed(axis) ? named : ticksOf(cut, tickValues(cut))", "ticks: named"]], { [TICKS]: /^[\d.,]*$/ }),
  onMain("the way back is offered always", [['class: "reset", hidden: "" }', 'class: "reset" }']], { [ZOOMS]: /true !== false/, [CLICK]: /true !== false/ }),
  onMain("the button does not lead back", [['button("Reset zoom", () => this.zoomTo(null)', 'button("Reset zoom", () => null']], { [ZOOMS]: /reset|Reset zoom/ }),
  onMain("Escape does not lead back", [["else this.zoomTo(null);", ""]], { [ZOOMS]: /Reset zoom/ }),
  onMain("a double click does not lead back", [['drawing.addEventListener("dblclick", () => this.zoomTo(null));', ""]], { [ZOOMS]: /Reset zoom/ }),
  on("capacity")("plus does nothing", [['"+": () => this.zoomBy(0.5)', '"+": () => null']], { [TICKS]: /notDeepStrictEqual|not to be.*deep/i }),
  on("capacity")("ticks of a logarithmic axis read alike", [["return texts(precision).map((text, i) => [values[i], text]);", "return texts(precision).map((text, i, all) => [values[i], all[0]]);"]], { [TICKS]: /,/ }),
  onMain("a click zooms", [["const DRAG_MIN = 6;", "const DRAG_MIN = 0;"]], { [CLICK]: /true !== false/ }),
  onMain("the tip leaves the window", [["tip.style.left = `${clamp(", "tip.style.left = `${300 + clamp("]], { [READS]: /within the window/ }),
  onMain("a finger drags", [['event.pointerType === "touch" || !this.isOverPlot(event)', "!this.isOverPlot(event)"]], { [MOVES]: /no zoom/ }),
  onMain("a finger is held fast", [["touch-action: pan-y pinch-zoom;", "touch-action: none;"]], { [MOVES]: /waitForFunction/ }),
  onMain("an arrow takes two steps", [["ArrowRight: () => step(1)", "ArrowRight: () => step(2)"]], { [ALOUD]: /ArrowRight: / }),
  onMain("the way back by arrow goes on", [["ArrowLeft: () => step(-1)", "ArrowLeft: () => step(1)"]], { [ALOUD]: /ArrowLeft: / }),
  onMain("End is the begin", [["End: () => places.at(-1)", "End: () => places[0]"]], { [ALOUD]: /End: / }),
  onMain("nothing is said aloud", [["spoken.textContent = this.pointAt(moves[event.key]());", "this.pointAt(moves[event.key]());"]], { [ALOUD]: /undefined/ }),
  onMain("keys show no tip", [["spoken.textContent = this.pointAt(moves[event.key]());", "{ spoken.textContent = this.pointAt(moves[event.key]()); hideTip(); }"]], { [ALOUD]: /false !== true/ }),
];

const KINDS = "there are pages of every kind";
const SMALL = "is small, alone and silent, and as wide as the window";
const SAME = "says and draws the same without its script, and has no button then";
const AXES = "writes the numbers of axes with its script as without";
const AXE = "keeps nobody out, says a reader of other people";
const AT_ONCE = "is there at once: its script takes less of the processor than laying it out";
const FIRST = `${MAIN}: answers the four questions on the first screen`;
const FIRST_OF_MANY = `${MANY_REASONS}: answers the four questions on the first screen`;
const UNFOLDS = "unfolds all reasons of a verdict by hand and on paper, without its script";
const PRINTS = "prints in black on white, without buttons, within the paper";
const LEGIBLE = "writes in drawings as legibly as elsewhere, and draws lines that can be seen";
const NO_OTHER = "lets no other script run";

const small = on("capacity");
const wide = (name, media, says) => small(name, [markup('<p class="broad">wide</p>'), style(`@media ${media} { .broad { width: 1400px; } }`)], { [SMALL]: says });
const everyPage = [
  { ...small("a page is missing", [], { [KINDS]: /^crash$/ }), without: ["crash"] },
  small("too large", [["</body>", `<!--${"x".repeat(1_500_000)}--></body>`]], { [SMALL]: /\d bytes/ }),
  wide("too wide for a phone", "(max-width: 400px)", /390 wide/),
  wide("too wide for a tablet", "(min-width: 700px) and (max-width: 800px)", /768 wide/),
  wide("too wide for a laptop", "(min-width: 1200px)", /1280 wide/),
  small("an image from elsewhere", [markup('<img src="http://127.0.0.1:9/x.png" alt="x">'), ["default-src 'none'", "default-src *"]], { [SMALL]: /request: http/ }),
  small("the policy refuses what the page wants", [markup('<img src="http://127.0.0.1:9/x.png" alt="x">')], { [SMALL]: /console error/ }),
  small("an error in the script", [script("setTimeout(() => { throw Error('broken'); });")], { [SMALL]: /error: broken/ }),
  small("a word on the console", [script("console.log('here');")], { [SMALL]: /console log: here/ }),
  small("a button without a script", [markup("<button>dead</button>")], { [SAME]: /1 !== 0/ }),
  small("the script does not run", [[/script-src 'sha256-[^']*'/, "script-src 'none'"]], { [SAME]: /adds buttons/ }),
  small("the script says more", [['document.querySelector(".bar")?.append(', 'document.querySelector("h1").append(" more"); document.querySelector(".bar")?.append(']], { [SAME]: /more/ }),
  small("nothing is said", [["<header>", "<template><header>"], ['<script id="behaviour"', '</template><script id="behaviour"']], { [SAME]: /something to say/ }),
  small("lines are drawn anew elsewhere", [["bottom - share(axes.y, y) * (bottom - top)]", "bottom - share(axes.y, y) * (bottom - top) + 1]"]], { [SAME]: /drawing 0/ }),
  small("the script writes a unit otherwise", [['1e3, "µs"]', '1e3, "us"]']], { [AXES]: /us/ }),
  small("the script writes thousands otherwise", [['/g, "\\u202f")', '/g, ",")']], { [AXES]: /,000/ }),
  small("the language is not said", [['<html lang="en">', "<html>"]], { [AXE]: /html-has-lang/ }),
  small("pale text in light colours", [["--soft: light-dark(#57606a,", "--soft: light-dark(#aaaaaa,"]], { [AXE]: /light[^]*color-contrast|color-contrast/ }),
  small("pale text in dark colours", [["--soft: light-dark(#57606a, #a3abb5)", "--soft: light-dark(#57606a, #555555)"]], { [AXE]: /color-contrast/ }),
  onMain("the script holds the page up", [script("{ const end = performance.now() + 200; while (performance.now() < end); }")], { [AT_ONCE]: /of laying out: / }),
  onMain("the answers are below the first screen", [style(".answers { margin-top: 600px; }")], { [FIRST]: /answers end at \d+.* of 800/ }),
  onMain("the answers are below the first screen of a phone", [style("@media (max-width: 560px) { .answers { margin-top: 600px; } }")], { [FIRST]: /answers end at \d+.* of 844/ }),
  onMain("no verdict", [['class="verdict ', 'class="word ']], { [FIRST]: /0 !== 1/ }),
  onMain("a question is not answered", [["Was anything lost?", "Was it fun?"]], { [FIRST]: /fun/ }),
  on(MANY_REASONS)("no reason is folded", [["<details>", "<details open>"]], { [FIRST_OF_MANY]: /answers end at/, [UNFOLDS]: /some are folded/ }),
  on(MANY_REASONS)("what is folded is not on paper", [["details::details-content { content-visibility: visible; block-size: auto; }", ""]], { [UNFOLDS]: /on paper/ }),
  on(MANY_REASONS)("what is folded does not open", [style("@media screen { details li { display: none; } }")], { [UNFOLDS]: /by hand/ }),
  onMain("paper in the colours of the screen", [[":root, :root[data-theme] { color-scheme: light; --bg: #fff;", ":root, :root[data-theme] { color-scheme: light; --bg: #eee;"]], { [PRINTS]: /deep/ }),
  onMain("buttons on paper", [["nav, button, .skip, .tip, .cross { display: none; }", "nav, .skip, .tip, .cross { display: none; }"]], { [PRINTS]: /!== 0/ }),
  onMain("no drawings on paper", [style("@media print { .chart svg { display: none; } }")], { [PRINTS]: /false !== true/ }),
  onMain("wider than the paper", [style("@media print { main { min-width: 900px; } }")], { [PRINTS]: /212 !== 0|\d+ !== 0/ }),
  onMain("a pale line in light colours", [["--c1: light-dark(#d55e00,", "--c1: light-dark(#f0d0b0,"]], { [LEGIBLE]: /light: \.chart svg \.line/ }),
  onMain("a pale line in dark colours", [["#56b4e9); --c1", "#223344); --c1"]], { [LEGIBLE]: /dark: \.chart svg / }),
  onMain("pale words in a drawing", [style("svg .tick { fill: #999; }")], { [LEGIBLE]: /light: \.chart svg text/ }),
  onMain("a pale part", [["--p3: light-dark(#00785a,", "--p3: light-dark(#66ccaa,"]], { [LEGIBLE]: /light: \.chart svg \.part/ }),
  onMain("a pale marker", [style(".marker.s2 { fill: #ddd; }")], { [LEGIBLE]: /light: \.chart svg \.marker/ }),
  onMain("any script runs", [[/script-src 'sha256-[^']*'/, "script-src 'unsafe-inline'"]], { [NO_OTHER]: /true !== false/ }),
  onMain("no script is loaded and nobody hears of it", [[/<meta http-equiv="Content-Security-Policy"[^>]*>/, ""]], { [NO_OTHER]: /true !== false/ }),
];

const OWN = [MAIN, "lying-server", "crash"].map((name) => `${name}: hold what the run's own files hold`);
const OF_GATE = "gate: hold its data";
const OF_COMPARISON = "comparison: hold its data";
const POINTS = "of a chart hold its points, with units and of every line";
const COPIED = "is copied as it stands";
const CHOSEN = "is the reader's, or the chosen one, and stays chosen";
const REFUSED = "can be chosen where nothing may be stored";

const allOwn = (says) => Object.fromEntries(OWN.map((title) => [title, says]));
const onRuns = on(MAIN, "lying-server", "crash");
const SAVED = "isCsv ? JSON.parse(data.textContent) : data.textContent)";
const files = [
  onRuns("the JSON is altered", [[SAVED, 'isCsv ? JSON.parse(data.textContent) : data.textContent.replace(/"seconds":/, \'"secs":\'))']], allOwn(/the JSON is another/)),
  onRuns("the CSV is altered", [[SAVED, 'isCsv ? JSON.parse(data.textContent) + " " : data.textContent)']], allOwn(/the CSV is another/)),
  onRuns("the JSON is called CSV", [['"Download CSV" : "Download JSON"', '"Download JSON" : "Download CSV"']], allOwn(/run\.csv/)),
  on("gate")("the gate's file is called otherwise", [['data-file="gate.json"', 'data-file="run.json"']], { [OF_GATE]: /run\.json/ }),
  on("comparison")("the comparison's data have no format", [[/"schema":"[^"]*\.v1"/, '"schema":"none"']], { [OF_COMPARISON]: /none/ }),
  on("gate")("a CSV that nobody made", [['data-file="gate.json"', 'data-file="gate.csv" ></script><script type="application/json" data-file="gate.json"']], { [OF_GATE]: /1 !== 0/ }),
  onMain("a point is missing", [['...of(name, "point", points),', '...of(name, "point", points.slice(1)),']], { [POINTS]: /'0\.5,/ }),
  onMain("numbers without a unit", [['IN_CSV = { time: "ns"', 'IN_CSV = { time: ""']], { [POINTS]: /time \[ns\]/ }),
  onMain("a line is missing", [["...this.series.flatMap(({ name, points", "...this.series.slice(1).flatMap(({ name, points"]], { [POINTS]: /'0\.5,/ }),
  onMain("a file without its chart's name", [["save(`${this.data.id}.csv`", "save(`points.csv`"]], { [POINTS]: /points\.csv/ }),
  onMain("something else is copied", [["writeText(source.textContent)", 'writeText("loadgen")']], { [COPIED]: /strictly equal/ }),
  onMain("nobody hears that it is copied", [['return "Copied";\n  } catch', 'return "Copy command";\n  } catch']], { [COPIED]: /Copied/ }),
  onMain("one theme for all", [[":root {\n  color-scheme: light dark;", ":root {\n  color-scheme: light;"]], { [CHOSEN]: /not to be|notStrictEqual|strictly unequal/ }),
  onMain("a theme cannot be chosen", [["else document.documentElement.dataset.theme = theme;", ""]], { [CHOSEN]: /rgb/, [REFUSED]: /strictly unequal|not to be/ }),
  onMain("a choice is not kept", [["storage.setItem(", "void ("]], { [CHOSEN]: /rgb/ }),
  onMain("a kept choice is not said", [["made.textContent = `Theme: ${theme}`;", 'made.textContent = `Theme: ${isChosen ? theme : "auto"}`;']], { [CHOSEN]: /0 !== 1/ }),
  onMain("refused storage ends the script", [[/const stored = \(act\) => \{[^]*?\n\};/, "const stored = (act) => act(window.localStorage);"]], { [REFUSED]: /Theme: auto/ }),
];

export const MUTANTS = { "charts.test.mjs": charts, "every-page.test.mjs": everyPage, "files.test.mjs": files };
