// ---- Lines ----

const pairs = (flat = []) => range(1, flat.length / 2).map((i) => [flat[2 * i - 2], flat[2 * i - 1]]);

/** The value of a line at x: of its point there, of the stair, or between two points along what is drawn. */
const valueAt = (points, x, isStair, { x: axisX, y: axisY }) => {
  const after = points.findIndex(([at]) => at >= x);
  if (after < 0) return undefined;
  if (points[after][0] === x) return { value: points[after][1], isExact: true };
  if (after === 0) return undefined;
  const [[x0, y0], [x1, y1]] = [points[after - 1], points[after]];
  if (isStair || y0 === y1) return { value: y0, isExact: true };
  const { place } = SCALES[axisX.scale];
  const y = SCALES[axisY.scale];
  const along = (place(x) - place(x0)) / (place(x1) - place(x0));
  return { value: y.value(y.place(y0) + along * (y.place(y1) - y.place(y0))), isExact: false };
};

/** What of a line lies from `low` to `high`, cut where the drawing crosses the edges. */
const within = (points, low, high, isStair, axes) =>
  points.flatMap((point, i) => {
    const edges = i === 0 ? [] : [low, high].filter((x) => points[i - 1][0] < x && x < point[0]);
    const cuts = edges.map((x) => [x, valueAt(points, x, isStair, axes).value]);
    return point[0] >= low && point[0] <= high ? [...cuts, point] : cuts;
  });

// ---- Drawing, as reports/src/chart/mod.rs does ----

const CHARACTER = 6.4;
const NAME_LENGTH_MAX = 13;
const RUG_HEIGHT = 14;
const RUG_GAP = 8;
const MARGIN_BOTTOM = 44;
const NAME_DISTANCE = 13;
const STYLES = 6;

const f = (value) => value.toFixed(1);
const styled = (what, style) => `${what} s${style % STYLES}`;

const shortened = (name) => {
  const characters = [...name];
  if (characters.length <= NAME_LENGTH_MAX) return name;
  const last = name.includes("/") ? [...name.slice(name.lastIndexOf("/") + 1)] : [];
  const isShort = last.length > 0 && last.length < NAME_LENGTH_MAX - 1;
  return isShort ? `…/${last.join("")}` : `…${characters.slice(1 - NAME_LENGTH_MAX).join("")}`;
};

const MARKERS = [
  (x, y) => `M${f(x - 3.4)} ${f(y)}a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z`,
  (x, y) => `M${f(x - 3)} ${f(y - 3)}h6v6h-6z`,
  (x, y) => `M${f(x)} ${f(y - 4.4)}l4 7h-8z`,
  (x, y) => `M${f(x)} ${f(y - 4.2)}l4.2 4.2l-4.2 4.2l-4.2 -4.2z`,
  (x, y) => `M${f(x)} ${f(y + 4.4)}l4 -7h-8z`,
  (x, y) => `M${f(x - 3)} ${f(y - 1)}h2v-2h2v2h2v2h-2v2h-2v-2h-2z`,
];

const path = (kind, d) => svg("path", { class: kind, d });
const label = (kind, x, y, text) => svg("text", { class: kind, x: typeof x === "number" ? f(x) : x, y: typeof y === "number" ? f(y) : y }, text);

/** Everything in the drawing, for these axes and series. */
class Drawing {
  constructor(data, axes, series, level) {
    Object.assign(this, { data, axes, series, level });
    [this.left, this.top, this.right, this.bottom] = data.plot;
  }

  at(x, y) {
    const { axes, left, right, top, bottom } = this;
    return [left + share(axes.x, x) * (right - left), bottom - share(axes.y, y) * (bottom - top)];
  }

  line(points, isStair) {
    const steps = points.map(([x, y], i) => {
      const [right, down] = this.at(x, y).map(f);
      return i === 0 ? `M${right} ${down}` : isStair ? `H${right}V${down}` : `L${right} ${down}`;
    });
    return steps.join("");
  }

  *axesParts() {
    const { axes, left, right, top, bottom } = this;
    for (const [value, text] of axes.y.ticks) {
      const y = this.at(axes.x.min, value)[1];
      yield path("grid", `M${left} ${f(y)}H${f(right)}`);
      yield label("tick end", left - 6, y + 4, text);
    }
    let freeFrom = -Infinity;
    for (const [value, text] of axes.x.ticks) {
      const [x, half] = [this.at(value, axes.y.min)[0], ([...text].length * CHARACTER) / 2];
      if (x - half < freeFrom) continue;
      freeFrom = x + half + 5;
      yield path("grid", `M${f(x)} ${top}V${f(bottom + 4)}`);
      yield label("tick middle", x, bottom + 17, text);
    }
    yield path("axis", `M${left} ${top}V${f(bottom)}H${f(right)}`);
    yield label("label", "4", "13", axes.y.label);
    yield label("label middle", (left + right) / 2, bottom + 35, axes.x.label);
  }

  *levelParts() {
    if (!this.level) return;
    const { points } = this.level;
    const isLevel = points.length === 1;
    yield path("level", isLevel ? `M${this.left} ${f(this.at(this.axes.x.min, points[0][1])[1])}H${f(this.right)}` : this.line(points, false));
  }

  *seriesParts(series) {
    const kind = styled("line", series.style);
    if (series.points.length > 1) yield path(kind + (series.is_repeat ? " thin" : ""), this.line(series.points, series.is_stair));
    if (series.faint.length > 1) yield path(`${kind} faint`, this.line(series.faint, series.is_stair));
    for (const [x, y] of series.markers) yield path(styled("marker", series.style), MARKERS[series.style % STYLES](...this.at(x, y)));
  }

  *rugParts() {
    const rows = this.series.filter((series) => series.rug.length > 0 && !series.is_repeat);
    const top = this.bottom + MARGIN_BOTTOM + RUG_GAP;
    if (rows.length > 0) yield label("label", "4", top + 4, this.data.rug_label ?? "");
    for (const [i, series] of rows.entries()) {
      const y = top + 9 + i * RUG_HEIGHT;
      const columns = new Set(series.rug.map((x) => Math.round(this.at(x, this.axes.y.min)[0])));
      yield path(styled("rug", series.style), [...columns].map((x) => `M${x} ${f(y)}v10`).join(""));
      yield label("tick", this.right + 6, y + 9, shortened(series.name));
    }
  }

  /** Names at the ends of the lines, pushed apart where they would overlap: down first, then up from the bottom. */
  *nameParts() {
    const ends = this.series.flatMap((series) => {
      const last = series.faint.at(-1) ?? series.points.at(-1);
      return last && !series.is_repeat ? [{ y: this.at(...last)[1], name: series.name }] : [];
    });
    ends.sort((a, b) => a.y - b.y);
    for (const [i, end] of ends.entries()) if (i > 0) end.y = Math.max(end.y, ends[i - 1].y + NAME_DISTANCE);
    let limit = this.bottom;
    for (const end of ends.toReversed()) {
      end.y = Math.min(end.y, limit);
      limit = end.y - NAME_DISTANCE;
    }
    for (const { y, name } of ends) yield label("tick", this.right + 6, y + 4, shortened(name));
  }

  parts() {
    return [
      ...this.axesParts(),
      ...this.levelParts(),
      ...this.series.flatMap((series) => [...this.seriesParts(series)]),
      ...this.rugParts(),
      ...this.nameParts(),
    ];
  }
}
