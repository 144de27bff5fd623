// ---- Elements ----

/** An element; text goes in as text, whatever is in it. */
const element = (space, name, attributes, children) => {
  const made = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const html = (name, attributes = {}, ...children) => element("http://www.w3.org/1999/xhtml", name, attributes, children);
const svg = (name, attributes = {}, ...children) => element("http://www.w3.org/2000/svg", name, attributes, children);

const button = (text, act, attributes = {}) => {
  const made = html("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
};

// ---- What is told of the place one points at ----

const tip = html("div", { class: "tip", "aria-hidden": "true", hidden: "" });
/** The same for those who hear the page. */
const spoken = html("div", { class: "unseen", role: "status" });
/** The drawing that the tip is of. */
let teller = null;

/** Beside a place of the window, and within it. */
const showTip = (owner, x, y, ...content) => {
  if (teller !== owner) teller?.leave();
  teller = owner;
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const [gap, edge, room] = [14, 4, document.documentElement.clientWidth];
  const left = x + gap + width > room - edge ? x - gap - width : x + gap;
  tip.style.left = `${clamp(left, edge, Math.max(edge, room - width - edge))}px`;
  tip.style.top = `${clamp(y - height / 2, edge, Math.max(edge, window.innerHeight - height - edge))}px`;
};
const hideTip = () => {
  teller = null;
  tip.hidden = true;
};

/** A drawing that takes the focus and the keys; what it tells stands beside it in words. */
const focusable = (drawing, name, keys) => {
  const plot = html("div", { class: "plot", tabindex: "0", role: "application", "aria-label": `${name}. ${keys}` });
  drawing.replaceWith(plot);
  plot.append(drawing);
  return plot;
};

const hasModifier = (event) => event.ctrlKey || event.metaKey || event.altKey;

// ---- Files ----

/** Nothing is sent: the browser writes what the page holds. The address lives as long as the page. */
const save = (file, type, text) => {
  const address = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: address, download: file }).click();
};

const csv = (rows) => {
  const field = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return rows.map((row) => `${row.map(field).join(",")}\r\n`).join("");
};
