// What the page does beyond being read: values under the pointer, hidden lines, a closer look at a part of a chart, files, the theme.
//
// Everything in these files is an addition: the page is complete without them, so all buttons are made here. Nothing is loaded and nothing is
// sent. They are one script (reports/src/embed.rs); the first half is numbers and axes, repeating reports/src/format.rs and chart/axis.rs: a
// test in a browser holds one against the other.
"use strict";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- Numbers as text: three digits as on the page, more where ticks lie so close that they would read alike ----

const decimals = (value, precision) => clamp(precision - 1 - Math.floor(Math.log10(Math.abs(value))), 0, 12);

const digits = (value, precision = 3) => {
  if (value === 0) return "0";
  const text = value.toFixed(decimals(value, precision)).replace("-", "−");
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
};

const number = (value, precision = 3) => {
  if (Math.abs(value) < 999.5) return digits(value, precision);
  const [whole, rest] = Math.abs(value).toFixed(decimals(value, precision)).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return (value < 0 ? "−" : "") + grouped + (Number(rest) > 0 ? `.${rest.replace(/0+$/, "")}` : "");
};

const scaled = (value, units, precision) => {
  const [, scale, unit] = units.find(([below]) => Math.abs(value) < below);
  return `${number(value / scale, precision)} ${unit}`;
};
const TIMES = [[999.5, 1, "ns"], [999.5e3, 1e3, "µs"], [999.5e6, 1e6, "ms"], [119.5e9, 1e9, "s"]];
const SIZES = [[2 ** 10, 1, "B"], [999.5 * 2 ** 10, 2 ** 10, "KiB"], [999.5 * 2 ** 20, 2 ** 20, "MiB"], [Infinity, 2 ** 30, "GiB"]];

const time = (ns, precision = 3) => {
  if (ns === 0) return "0";
  if (Math.abs(ns) < 119.5e9) return scaled(ns, TIMES, precision);
  const seconds = precision > 3 ? ns / 1e9 : Math.round(ns / 1e9);
  const rest = digits(seconds % 60, precision);
  return `${Math.trunc(seconds / 60)} min` + (rest === "0" ? "" : ` ${rest} s`);
};

/** How the values of an axis are written, by the name of its unit. */
const UNITS = {
  time,
  seconds: (value, precision) => time(value * 1e9, precision),
  number,
  rate: (value, precision) => `${number(value, precision)}/s`,
  bytes: (value, precision = 3) => scaled(value, SIZES, precision),
  quantile: (value, precision = 3) => `p${Number((value * 100).toFixed(precision + 1))}`,
  percent: (value, precision) => `${number(value * 100, precision)} %`,
  change: (value, precision) => (value > 0 ? "+" : "") + UNITS.percent(value, precision),
};

// ---- Axes ----

/** Values to places where equal steps are equally far apart, and back. */
const SCALES = {
  linear: { place: (value) => value, value: (place) => place },
  log: { place: (value) => Math.log10(Math.max(value, Number.MIN_VALUE)), value: (place) => 10 ** place },
  tail: { place: (q) => -Math.log10(Math.max(1 - q, 1e-12)), value: (place) => 1 - 10 ** -place },
};

const share = (axis, value) => {
  const { place } = SCALES[axis.scale];
  return clamp((place(value) - place(axis.min)) / (place(axis.max) - place(axis.min)), 0, 1);
};

const range = (from, to) => Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);

/** The nearest of 1, 2, 5 × 10ⁿ that is not below `step`. */
const roundStep = (step) => {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= step * 0.999) ?? 10 * power;
};

const linearValues = (low, high) => {
  const step = roundStep((high - low) / 5);
  // Multiplied, not added up, and cleaned of what binary fractions leave behind.
  return range(Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)).map((i) => Number((i * step).toPrecision(12)));
};

const logValues = (low, high, steps) =>
  range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))).flatMap((e) => steps.map((s) => Number(`${s}e${e}`)));

const tailValues = (low, high, steps) =>
  range(0, Math.ceil(SCALES.tail.place(high)) + 1)
    .flatMap((e) => steps.map((s) => Number((1 - s * 10 ** -e).toFixed(12))))
    .concat(0.5)
    .sort((a, b) => a - b);

/** Round values within an axis that begins and ends anywhere: of the coarsest kind that gives at least three. */
const tickValues = ({ scale, min, max }) => {
  const kinds = [[1], [1, 2, 5], range(1, 9)];
  const candidates = { linear: () => [], log: logValues, tail: tailValues }[scale];
  const within = (values) => [...new Set(values)].filter((v) => v >= min && v <= max);
  return kinds.map((steps) => within(candidates(min, max, steps))).find((v) => v.length > 2) ?? linearValues(min, max);
};

/** With texts that differ. */
const ticksOf = (axis, values) => {
  const texts = (precision) => values.map((value) => UNITS[axis.unit](value, precision));
  const precision = range(3, 12).find((p) => new Set(texts(p)).size === values.length) ?? 12;
  return texts(precision).map((text, i) => [values[i], text]);
};

const part = (axis, min, max) => {
  const cut = { ...axis, min, max };
  return { ...cut, ticks: ticksOf(cut, tickValues(cut)) };
};

/** The vertical axis around other values, rounded as the page's own is. One that reaches below 0 is symmetric and stays. */
const around = (axis, values) => {
  const shown = values.filter((value) => axis.scale !== "log" || value > 0);
  if (shown.length === 0 || axis.min < 0) return axis;
  const [low, high] = [Math.min(...shown), Math.max(...shown)];
  if (axis.scale === "linear") {
    const step = roundStep(Math.max(high, 1e-9) / 5);
    const max = Math.max(1, Math.ceil(high / step - 1e-9)) * step;
    return { ...axis, min: 0, max, ticks: ticksOf(axis, linearValues(0, max)) };
  }
  const top = Math.max(high, low * 1.5);
  const decades = Math.log10(top / low);
  const all = logValues(low, top, decades <= 2 ? [1, 2, 5] : decades <= 3.5 ? [1, 3] : [1]);
  const min = all.findLast((v) => v <= low * 1.0001) ?? low;
  const max = all.find((v) => v >= top * 0.9999) ?? top;
  return { ...axis, min, max, ticks: ticksOf(axis, all.filter((v) => v >= min && v <= max)) };
};
