// ---- Any other drawing: its shapes carry what they say as their title ----

class Shapes {
  constructor(drawing) {
    const titles = [...drawing.querySelectorAll("title")].filter((title) => title.parentNode !== drawing);
    this.texts = new Map(titles.map((title) => [title.parentNode, title.textContent]));
    if (this.texts.size === 0) return;
    for (const title of titles) title.remove();
    // The drawing's own title is its name, which the browser would show beside our tip; a description names it as well.
    const own = drawing.querySelector(":scope > title");
    own?.replaceWith(svg("desc", { id: own.id }, own.textContent));
    const name = drawing.getAttribute("aria-label") ?? drawing.closest("figure")?.querySelector("figcaption")?.textContent ?? "Drawing";
    const plot = focusable(drawing, name, "Arrow keys read the values.");
    drawing.addEventListener("pointermove", (event) => this.point(event));
    drawing.addEventListener("pointerdown", (event) => this.point(event));
    drawing.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.leave());
    plot.addEventListener("blur", () => this.leave());
    plot.addEventListener("keydown", (event) => this.key(event));
  }

  point(event) {
    let shape = event.target;
    while (shape && !this.texts.has(shape)) shape = shape.parentElement;
    if (shape) this.tell(shape, event.clientX, event.clientY);
    else this.leave();
  }

  tell(shape, x, y) {
    this.leave();
    this.at = shape;
    shape.classList.add("pointed");
    showTip(this, x, y, ...this.texts.get(shape).split("\n").map((line) => html("p", {}, line)));
  }

  leave() {
    this.at?.classList.remove("pointed");
    hideTip();
  }

  /** To the nearest shape whose middle lies that way: along the row or column first. */
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") this.leave();
    if (!way || hasModifier(event)) return;
    event.preventDefault();
    const middle = (shape) => {
      const { left, top, width, height } = shape.getBoundingClientRect();
      return [left + width / 2, top + height / 2];
    };
    const all = [...this.texts.keys()].map((shape) => [shape, ...middle(shape)]);
    const [x, y] = this.at ? middle(this.at) : [-Infinity, -Infinity];
    const cost = ([, otherX, otherY]) => {
      const [ahead, aside] = way[0] ? [(otherX - x) * way[0], Math.abs(otherY - y)] : [(otherY - y) * way[1], Math.abs(otherX - x)];
      return ahead > 0.5 ? ahead + 4 * aside : Infinity;
    };
    const best = this.at ? all.reduce((best, other) => (cost(other) < cost(best) ? other : best)) : all[0];
    if (this.at && cost(best) === Infinity) return;
    this.tell(...best);
    spoken.textContent = this.texts.get(best[0]);
  }
}

// ---- The page ----

/** Storage may be refused, as for files in some browsers: then the choice lasts as long as the page. */
const stored = (act) => {
  try {
    return act(window.localStorage);
  } catch {
    return null;
  }
};

const themeButton = () => {
  const themes = ["auto", "light", "dark"];
  const made = button("", () => set(themes[(themes.indexOf(current) + 1) % themes.length], true));
  let current = "auto";
  const set = (theme, isChosen) => {
    current = theme;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    made.textContent = `Theme: ${theme}`;
    if (isChosen) stored((storage) => storage.setItem("millrace-theme", theme));
  };
  const kept = stored((storage) => storage.getItem("millrace-theme"));
  set(themes.includes(kept) ? kept : "auto", false);
  return made;
};

const fileButtons = () =>
  [...document.querySelectorAll("script[data-file]")].map((data) => {
    const { file } = data.dataset;
    const isCsv = file.endsWith(".csv");
    const act = () => save(file, isCsv ? "text/csv" : "application/json", isCsv ? JSON.parse(data.textContent) : data.textContent);
    return button(isCsv ? "Download CSV" : "Download JSON", act);
  });

/** Without leave to use the clipboard, what is to be copied is selected at least. */
const copy = async (source) => {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return "Copied";
  } catch {
    window.getSelection().selectAllChildren(source);
    return document.execCommand("copy") ? "Copied" : "Selected";
  }
};

const addCopyButton = (source) => {
  const box = html("div", { class: "copyable" });
  source.replaceWith(box);
  const made = button("Copy command", async () => {
    made.textContent = await copy(source);
    spoken.textContent = made.textContent;
  });
  box.append(source, made);
};

document.querySelector(".bar")?.append(html("div", { class: "tools" }, ...fileButtons(), themeButton()));
for (const source of document.querySelectorAll("pre")) addCopyButton(source);
for (const data of document.querySelectorAll("figure > script")) new Chart(data.parentNode, JSON.parse(data.textContent));
for (const drawing of document.querySelectorAll("main svg")) if (!drawing.closest(".plot, .legend")) new Shapes(drawing);
document.body.append(tip, spoken);
window.addEventListener("scroll", () => teller?.leave(), { passive: true });
document.addEventListener("keydown", (event) => event.key === "Escape" && teller?.leave());
document.addEventListener("pointerdown", (event) => !event.target.closest?.(".plot") && teller?.leave());
