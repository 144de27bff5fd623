// ---- A chart ----

const IN_CSV = { time: "ns", seconds: "s", rate: "1/s", bytes: "bytes", quantile: "0..1", percent: "share", change: "share" };
/** Widths of a drag, in units of the drawing, from which on it is one. */
const DRAG_MIN = 6;
/** The level's key among the names of the series. */
const LEVEL = Symbol("level");

class Chart {
  constructor(figure, data) {
    this.data = data;
    this.axes = { x: data.x, y: data.y };
    this.series = data.series.map((series) => ({
      ...series,
      points: pairs(series.points),
      faint: pairs(series.faint),
      markers: series.markers ?? [],
      rug: series.rug ?? [],
    }));
    this.level = data.level && { ...data.level, points: pairs(data.level.points) };
    this.hidden = new Set();
    this.zoom = null;
    this.drawing = figure.querySelector(":scope > svg");
    this.lines = this.drawing.querySelector("g");
    // The script tells what is at a marker; the browser would tell it once more.
    for (const title of this.lines.querySelectorAll("title")) title.remove();
    this.cross = svg("g", { class: "cross" });
    this.drawing.append(this.cross);
    this.plot = focusable(this.drawing, data.title, "Arrow keys read the values, plus and minus zoom, Escape resets.");
    this.addTools(figure);
    this.addLegend(figure);
    this.listen();
  }

  addTools(figure) {
    this.reset = button("Reset zoom", () => this.zoomTo(null), { class: "reset", hidden: "" });
    const file = button("CSV", () => save(`${this.data.id}.csv`, "text/csv", csv(this.rows())), {
      "aria-label": `Download the points of “${this.data.title}” as CSV`,
    });
    figure.querySelector(":scope > figcaption").after(html("div", { class: "tools" }, this.reset, file));
  }

  /** Each entry of the legend becomes a button that hides and shows its lines. */
  addLegend(figure) {
    const named = this.series.filter((series) => !series.is_repeat).map((series) => series.name);
    const keys = this.level ? [...named, LEVEL] : named;
    const items = [...figure.querySelectorAll(":scope > .legend > li")];
    this.entries = new Map(keys.map((key, i) => [key, this.entry(items[i], key)]));
  }

  entry(item, key) {
    const act = (event) => (event.shiftKey ? this.isolate(key) : this.toggle(key));
    const entry = button("", act, { "aria-pressed": "true", title: "Click: hide or show. Double click or Shift: this one alone." });
    entry.addEventListener("dblclick", () => this.isolate(key));
    entry.append(...item.childNodes);
    item.append(entry);
    return entry;
  }

  toggle(key) {
    if (!this.hidden.delete(key)) this.hidden.add(key);
    this.draw();
  }

  /** This one alone, and all again when it is alone already. */
  isolate(key) {
    const others = [...this.entries.keys()].filter((other) => other !== key);
    const isAlone = !this.hidden.has(key) && others.every((other) => this.hidden.has(other));
    this.hidden = new Set(isAlone ? [] : others);
    this.draw();
  }

  shown() {
    return this.series.filter((series) => !this.hidden.has(series.name));
  }

  /** Within the part that is looked at. */
  visible() {
    const shown = this.shown();
    const level = this.hidden.has(LEVEL) ? undefined : this.level;
    if (!this.zoom) return [shown, level];
    const [low, high] = this.zoom;
    const cut = (points, isStair) => within(points, low, high, isStair, this.axes);
    const isWithin = (x) => x >= low && x <= high;
    const series = shown.map((series) => ({
      ...series,
      points: cut(series.points, series.is_stair),
      faint: cut(series.faint, series.is_stair),
      markers: series.markers.filter(([x]) => isWithin(x)),
      rug: series.rug.filter(isWithin),
    }));
    return [series, level && level.points.length > 1 ? { ...level, points: cut(level.points, false) } : level];
  }

  draw() {
    const [series, level] = this.visible();
    const isWhole = !this.zoom && this.hidden.size === 0;
    const values = series.flatMap(({ points, faint, markers }) => [...points, ...faint, ...markers].map(([, y]) => y));
    const axes = {
      x: this.zoom ? part(this.data.x, ...this.zoom) : this.data.x,
      y: isWhole ? this.data.y : around(this.data.y, [...values, ...(level?.points ?? []).map(([, y]) => y)]),
    };
    this.drawn = new Drawing(this.data, axes, series, level);
    this.lines.replaceChildren(...this.drawn.parts());
    for (const [key, entry] of this.entries) entry.setAttribute("aria-pressed", String(!this.hidden.has(key)));
    this.leave();
  }

  /** Where things are now; as the page came until something was drawn anew. */
  now() {
    this.drawn ??= new Drawing(this.data, this.axes, this.series, this.level);
    return this.drawn;
  }

  // -- Reading values --

  /** Where the named lines have points, in order: the places at which values are told. */
  places() {
    const { min, max } = this.now().axes.x;
    const own = this.shown().filter((series) => !series.is_repeat);
    const all = own.flatMap((series) => [...series.points, ...series.faint, ...series.markers].map(([x]) => x));
    return [...new Set(all)].filter((x) => x >= min && x <= max).sort((a, b) => a - b);
  }

  nearest(x) {
    const { place } = SCALES[this.data.x.scale];
    const distance = (other) => Math.abs(place(other) - place(x));
    return this.places().reduce((best, other) => (best === undefined || distance(other) < distance(best) ? other : best), undefined);
  }

  /** What one line says at x: a value, whether it is one of its points, and whether it rests on enough samples. */
  told(series, x) {
    const sure = valueAt(series.points, x, series.is_stair, this.axes);
    const found = sure ?? valueAt(series.faint, x, series.is_stair, this.axes);
    if (found) {
      const text = UNITS[this.data.y.unit](found.value);
      const isUnsure = !sure && series.points.length > 0;
      return { y: found.value, text: `${found.isExact ? "" : "≈ "}${text}${isUnsure ? " (few samples)" : ""}` };
    }
    if (series.points.length + series.faint.length > 0) return undefined;
    const [, y, text] = series.markers.find(([at]) => at === x) ?? [];
    return text && { y, text, isSentence: true };
  }

  /** A single level says its value in its name. */
  toldOfLevel(x) {
    const { points, name } = this.level;
    if (points.length === 1) return [{ text: name, isSentence: true }];
    const found = valueAt(points, x, false, this.axes);
    return found ? [{ text: UNITS[this.data.y.unit](found.value) }] : [];
  }

  /** Name, swatch and values of every visible line at x, the repetitions of one in one row. */
  reading(x) {
    const shown = this.shown().toReversed();
    const names = [...new Set([...this.entries.keys()].filter((key) => key !== LEVEL).concat(shown.map((series) => series.name)))];
    const rows = names.map((name) => {
      const told = shown.filter((series) => series.name === name).map((series) => ({ ...this.told(series, x), style: series.style }));
      return { name, told: told.filter(({ text }) => text) };
    });
    if (this.level && !this.hidden.has(LEVEL)) rows.push({ name: this.level.name, key: LEVEL, told: this.toldOfLevel(x) });
    return { at: UNITS[this.data.x.unit](x), rows: rows.filter(({ told }) => told.length > 0) };
  }

  /** Cross-hair and tip at x. */
  pointAt(x, clientY) {
    this.x = x;
    const { at, rows } = this.reading(x);
    const drawn = this.now();
    const right = drawn.at(x, drawn.axes.y.min)[0];
    const dots = rows.flatMap(({ told }) => told.filter(({ y }) => y !== undefined).map(({ y, style }) => [drawn.at(x, y)[1], style]));
    this.cross.replaceChildren(
      path("hair", `M${f(right)} ${drawn.top}V${f(drawn.bottom)}`),
      ...dots.map(([cy, style]) => svg("circle", { class: styled("dot", style), cx: f(right), cy: f(cy), r: "3.2" })),
    );
    const { left, top, scale } = this.box();
    const label = this.data.x.label.replace(/ \(.*/, "");
    showTip(this, left + right * scale, clientY ?? top + drawn.top * scale, html("p", { class: "at" }, `${label}: ${at}`), ...rows.map((row) => this.row(row)));
    return [`${label} ${at}`, ...rows.map(({ name, told }) => told.map(({ text, isSentence }) => (isSentence ? text : `${name} ${text}`)).join(", "))].join("; ");
  }

  row({ name, key, told }) {
    const swatch = this.entries.get(key ?? name)?.querySelector("svg")?.cloneNode(true);
    const isSentence = told.every((one) => one.isSentence);
    const texts = told.map(({ text }) => text).join(isSentence ? "; " : " · ");
    return html("p", {}, swatch ?? "", ...(isSentence ? [] : [html("span", {}, name)]), html("b", {}, texts));
  }

  leave() {
    this.cross.replaceChildren();
    hideTip();
  }

  // -- Looking closer --

  /** From a value of x to another; `null` is all of it. */
  zoomTo(range) {
    const hadFocus = document.activeElement === this.reset;
    this.zoom = range;
    this.reset.hidden = range === null;
    if (hadFocus) this.plot.focus();
    this.draw();
  }

  /** By a factor around what was read last. */
  zoomBy(factor) {
    const { place, value } = SCALES[this.data.x.scale];
    const all = [this.data.x.min, this.data.x.max].map(place);
    const [low, high] = (this.zoom ?? [this.data.x.min, this.data.x.max]).map(place);
    const middle = clamp(place(this.x ?? value((low + high) / 2)), low, high);
    const half = ((high - low) * factor) / 2;
    // Not so close that neighbouring values could no longer be told apart.
    if (half < (all[1] - all[0]) * 1e-5) return;
    const from = clamp(middle - half, all[0], Math.max(all[0], all[1] - 2 * half));
    const isAll = 2 * half >= (all[1] - all[0]) * 0.999;
    this.zoomTo(isAll ? null : [value(from), value(from + 2 * half)]);
  }

  /** Where the drawing is in the window, and how many pixels its unit has. */
  box() {
    const { left, top, width } = this.drawing.getBoundingClientRect();
    return { left, top, scale: width / this.drawing.viewBox.baseVal.width };
  }

  /** Place and value of x under the pointer. */
  under(event) {
    const { left, scale } = this.box();
    const drawn = this.now();
    const right = clamp((event.clientX - left) / scale, drawn.left, drawn.right);
    const { place, value } = SCALES[this.data.x.scale];
    const [low, high] = [drawn.axes.x.min, drawn.axes.x.max].map(place);
    return { right, x: value(low + ((right - drawn.left) / (drawn.right - drawn.left)) * (high - low)) };
  }

  isOverPlot(event) {
    const { left, top, scale } = this.box();
    const [right, down] = [(event.clientX - left) / scale, (event.clientY - top) / scale];
    const drawn = this.now();
    return right > drawn.left - 8 && right < drawn.right + 8 && down > drawn.top - 8 && down < drawn.bottom + 24;
  }

  point(event) {
    const x = this.isOverPlot(event) ? this.nearest(this.under(event).x) : undefined;
    if (x === undefined) this.leave();
    else this.pointAt(x, event.clientY);
  }

  listen() {
    const { drawing } = this;
    drawing.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.point(event);
      // A finger reads values and moves the page; only a mouse or a pen drags.
      if (event.pointerType === "touch" || !this.isOverPlot(event)) return;
      this.from = this.under(event);
      drawing.setPointerCapture(event.pointerId);
    });
    drawing.addEventListener("pointermove", (event) => {
      this.point(event);
      if (this.from) this.markDrag(this.under(event));
    });
    drawing.addEventListener("pointerup", (event) => {
      const [from, to] = [this.from, this.under(event)];
      this.endDrag();
      if (from && Math.abs(to.right - from.right) >= DRAG_MIN) this.zoomTo([from.x, to.x].sort((a, b) => a - b));
    });
    drawing.addEventListener("pointercancel", () => this.endDrag());
    drawing.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch" && !this.from) this.leave();
    });
    drawing.addEventListener("dblclick", () => this.zoomTo(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => this.leave());
  }

  markDrag(to) {
    const { top, bottom } = this.now();
    const [left, right] = [this.from.right, to.right].sort((a, b) => a - b);
    this.mark?.remove();
    this.mark = svg("rect", { class: "drag", x: f(left), y: top, width: f(right - left), height: f(bottom - top) });
    this.cross.append(this.mark);
  }

  endDrag() {
    this.from = undefined;
    this.mark?.remove();
  }

  key(event) {
    if (hasModifier(event)) return;
    const places = this.places();
    const step = (by) => {
      const from = this.x === undefined ? (by > 0 ? -1 : places.length) : places.indexOf(this.nearest(this.x));
      return places[clamp(from + by, 0, places.length - 1)];
    };
    const moves = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => places[0], End: () => places.at(-1) };
    const acts = { "+": () => this.zoomBy(0.5), "=": () => this.zoomBy(0.5), "-": () => this.zoomBy(2), Escape: () => this.escape() };
    if (moves[event.key] && places.length > 0) spoken.textContent = this.pointAt(moves[event.key]());
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  }

  /** The drag that is under way, else the zoom. */
  escape() {
    if (this.from) this.endDrag();
    else this.zoomTo(null);
  }

  // -- Its numbers as a file --

  rows() {
    const { x, y, title } = this.data;
    const heading = ({ label, unit }, otherwise) => (label || otherwise) + (IN_CSV[unit] ? ` [${IN_CSV[unit]}]` : "");
    const of = (name, kind, points) => points.map(([x, y, text]) => [name, kind, x, y ?? "", text ?? ""]);
    return [
      ["series", "kind", heading(x, "x"), heading(y, title), "text"],
      ...this.series.flatMap(({ name, points, faint, markers, rug }) => [
        ...of(name, "point", points),
        ...of(name, points.length > 0 ? "few samples" : "point", faint),
        ...of(name, "marker", markers),
        ...of(name, "tick", rug.map((x) => [x])),
      ]),
      ...(this.level ? of(this.level.name, "level", this.level.points) : []),
    ];
  }
}
