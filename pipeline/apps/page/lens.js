"use strict";
// The number lens: where a number comes from, term by term, with its equation in the notation of
// docs/mathematics.md.

const MATHEMATICS = "../docs/mathematics.md"; // from reports/, where the page is written
const SHOWN_TERMS = 8;
const EPSILON = 1e-5; // of nudging, which is done in float64
const DOCKED_TOP = 64; // pixels at the top of a phone's screen, where the tabs are

const SYMBOLS = {
  kernel: "k",
  weight: "W",
  bias: "b",
  gamma: "γ",
  beta: "β",
  running_mean: "μ",
  running_var: "σ²",
  loss: "L",
};
// A bar over a letter: dL/d of it, everywhere on the page.
const overlined = (symbol) => (symbol[0] + "\u0304" + symbol.slice(1)).normalize("NFC");
const symbolOf = (name) => {
  if (name.startsWith("grad_")) return overlined(SYMBOLS[name.slice(5)] ?? name.slice(5));
  return SYMBOLS[name] ?? name;
};

const ELEMENTWISE = { section: "6. Activations", y: "y = f(x)", grad_x: "x̄ = ȳ · f′(x)" };
const COPIED = { y: "y = x", grad_x: "x̄ = ȳ" };

// For each layer type its section, and the equation of each array.
const EQUATIONS = {
  conv2d: {
    section: "4. Convolution",
    y: "y[p, q, o] = b[o] + Σ x[p + i, q + j, c] · k[i, j, c, o]",
    grad_x: "x̄[r, u, c] = Σ ȳ[r − i, u − j, o] · k[i, j, c, o]",
    grad_kernel: "k̄[i, j, c, o] = Σ ȳ[p, q, o] · x[p + i, q + j, c]",
    grad_bias: "b̄[o] = Σ ȳ[p, q, o]",
  },
  max_pool2d: {
    section: "MaxPool2D",
    y: "y[p, q, c] = max x[window of (p, q), c]",
    grad_x: "x̄[r, u, c] = Σ ȳ[p, q, c] · [(r, u) is the winner of window (p, q)]",
  },
  avg_pool2d: {
    section: "AvgPool2D",
    y: "y[p, q, c] = 1/m · Σ x[window of (p, q), c]",
    grad_x: "x̄[r, u, c] = Σ ȳ[p, q, c] / m",
  },
  global_avg_pool2d: {
    section: "GlobalAvgPool2D and GlobalMaxPool2D",
    y: "y[c] = 1/(h·w) · Σ x[p, q, c]",
    grad_x: "x̄[p, q, c] = ȳ[c] / (h·w)",
  },
  global_max_pool2d: {
    section: "GlobalAvgPool2D and GlobalMaxPool2D",
    y: "y[c] = max x[p, q, c]",
    grad_x: "x̄[p, q, c] = ȳ[c] · [(p, q) is the first maximum]",
  },
  dense: {
    section: "3. Dense",
    y: "y[o] = b[o] + Σ x[i] · W[i, o]",
    grad_x: "x̄[i] = Σ ȳ[o] · W[i, o]",
    grad_weight: "W̄[i, o] = x[i] · ȳ[o]",
    grad_bias: "b̄[o] = ȳ[o]",
  },
  batch_norm: {
    section: "8. Normalisation",
    y: "y = γ · (x − μ) / √(σ² + ε) + β, with the running mean and variance",
    grad_x: "x̄ = ȳ · γ / √(σ² + ε): as in evaluation, μ and σ² are constants",
    grad_gamma: "γ̄[c] = Σ ȳ · (x − μ) / √(σ² + ε)",
    grad_beta: "β̄[c] = Σ ȳ",
  },
  layer_norm: {
    section: "8. Normalisation",
    y: "y = γ · (x − μ) / √(σ² + ε) + β, with mean and variance over the channels",
    grad_x: "x̄ = 1/d · (γȳ − mean(γȳ) − x̂ · mean(γȳ·x̂)): three paths",
    grad_gamma: "γ̄[c] = Σ ȳ · x̂",
    grad_beta: "β̄[c] = Σ ȳ",
  },
  softmax: {
    section: "7. Softmax and its logarithm as layers",
    y: "y[i] = e^x[i] / Σ e^x[j]",
    grad_x: "x̄[i] = y[i] · (ȳ[i] − Σ ȳ[j] · y[j])",
  },
  log_softmax: {
    section: "7. Softmax and its logarithm as layers",
    y: "y[i] = x[i] − ln Σ e^x[j]",
    grad_x: "x̄[i] = ȳ[i] − e^y[i] · Σ ȳ[j]",
  },
  dropout: { ...COPIED, section: "9. Dropout" },
  spatial_dropout: { ...COPIED, section: "9. Dropout" },
  flatten: { ...COPIED, section: "10. Flatten, Sequential, Residual" },
  sequential: { ...COPIED, section: "10. Flatten, Sequential, Residual" },
  residual: {
    section: "10. Flatten, Sequential, Residual",
    y: "y = layers(x) + shortcut(x)",
    grad_x: "x̄ = what the layers return + what the shortcut returns",
    grad_y: "ȳ of a branch = ȳ of the sum",
  },
  relu: { ...ELEMENTWISE, y: "y = max(x, 0)", grad_x: "x̄ = ȳ · [x > 0]" },
  scale: { ...COPIED, section: "6. Activations", y: "y = factor · x", grad_x: "x̄ = ȳ · factor" },
};
const LOSS_EQUATIONS = {
  softmax_cross_entropy: {
    section: "Softmax cross-entropy",
    loss: "L = −ln ŷ[label] = −z[label] + max z + ln Σ e^(z − max z)",
    grad_y: "z̄[k] = ŷ[k] − t[k]",
    why:
      "L = ln Σ e^z − z[label]. The derivative of the first part by z[k] is e^z[k] / Σ e^z = ŷ[k]; that " +
      "of the second is 1 for the label, else 0: t[k].",
  },
  cross_entropy: {
    section: "Cross-entropy of probabilities",
    loss: "L = −ln ŷ[label]",
    grad_y: "ȳ[k] = −t[k] / ŷ[k]",
    why: "L = −ln ŷ[label]: the derivative of −ln ŷ is −1/ŷ, and the other classes do not occur in L.",
  },
};

// GitHub's anchor of a heading.
const anchorOf = (title) =>
  title
    .toLowerCase()
    .replace(/[^\w\s-]/g, "")
    .replaceAll(" ", "-");

// A number for a small cell: "−.07".
function shortened(value) {
  const size = Math.abs(value);
  const text =
    size >= 10
      ? format(size, 3)
      : size
          .toFixed(size >= 1 ? 2 : 3)
          .replace(/^0\./, ".")
          .replace(/^\.000$/, "0");
  return value < 0 && text !== "0" ? `−${text}` : text;
}

// The position of a number along each axis of an array.
function positionOf(index, shape) {
  const position = [];
  for (const length of [...shape].reverse()) {
    position.unshift(index % length);
    index = Math.floor(index / length);
  }
  return position;
}

const AXES = {
  image: ["row", "column", "channel"],
  kernel: ["row", "column", "input channel", "output channel"],
  weight: ["input", "output"],
};

// A grid of buttons is one stop of the Tab key; arrow keys lead to the next one.
function makeGrid(cells, columns, label) {
  const grid = makeElement("div", { className: "cells" }, ...cells);
  grid.style.setProperty("--columns", columns);
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", label);
  cells.forEach((cell, k) => (cell.tabIndex = k ? -1 : 0));
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const next = cells[cells.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    for (const cell of cells) cell.tabIndex = cell === next ? 0 : -1;
    next.focus();
  });
  return grid;
}

// What the terms of a sum are.
function nounOf(terms) {
  const products = terms.filter(({ factors }) => factors.length > 1).length;
  if (products === terms.length) return "products";
  return products ? "terms" : "numbers";
}

class NumberLens {
  // `ask` asks the worker; `ladder` frames the places.
  constructor(element, ask, ladder) {
    Object.assign(this, {
      element,
      ask,
      ladder,
      place: null,
      past: [],
      version: 0,
      shown: null,
      ready: null,
    });
    this.title = element.querySelector("h2");
    this.body = element.querySelector(".body");
    this.status = element.querySelector(".spoken");
    this.back = element.querySelector(".back");
    this.back.onclick = () => this.pick(this.past.pop(), { isBack: true });
    element.querySelector(".close").onclick = () => this.close();
    this.empty = this.body.firstElementChild;
  }

  // Shows a number that the reader has chosen; a link in the lens brings it into view.
  async pick(place, { isBack = false, scroll = isBack } = {}) {
    if (this.place && !isBack && JSON.stringify(place) !== JSON.stringify(this.place)) {
      this.past = [...this.past, this.place].slice(-50);
    }
    this.place = place;
    this.back.disabled = this.past.length === 0;
    this.element.classList.add("open");
    await this.refresh();
    if (scroll) this.scrollTo(place);
  }

  scrollTo(place) {
    const strip = this.ladder.stripOf(place);
    const element = place.of === "loss" ? this.ladder.rows.at(-1).element : strip?.element;
    const column = strip?.element.closest(".column")?.classList[1];
    if (column) this.ladder.onColumn?.(column);
    const frame = element?.querySelector(".chosen") ?? element;
    if (!frame) return;
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const behavior = isStill ? "auto" : "smooth";
    if (!this.isDocked) {
      return frame.scrollIntoView({ block: "center", behavior });
    }
    // Docked, it covers what is below, so the frame is brought into the middle of the part that is free.
    const [top, bottom] = [DOCKED_TOP, this.element.getBoundingClientRect().top];
    const box = frame.getBoundingClientRect();
    const space = Math.max(0, (bottom - top - box.height) / 2);
    scrollBy({ top: box.top - top - space, behavior });
  }

  // On a narrow screen, it is a sheet over the lower part.
  get isDocked() {
    return getComputedStyle(this.element).position === "fixed";
  }

  close() {
    this.version++;
    Object.assign(this, { place: null, past: [], shown: null });
    this.back.disabled = true;
    this.element.classList.remove("open");
    this.body.replaceChildren(this.empty);
    this.ladder.outline({}, [], []);
  }

  // Shows the chosen number as it is now, of the last pass that the worker has; `ready` waits for all of it.
  refresh() {
    return (this.ready = this.load());
  }

  async load() {
    const version = ++this.version;
    if (!this.place) return;
    if (!this.ladder.pass?.grad_y) return; // no pass yet: `refresh` comes again
    const place = this.place;
    let explanation;
    let goals;
    try {
      const asked = [this.ask("explain", { places: [place] }), this.ask("goals", { place })];
      const [found, reached] = await Promise.all(asked);
      [explanation] = found.explanations;
      goals = reached.goals;
    } catch {
      return; // the weights have changed since: the next pass comes here again
    }
    if (version !== this.version) return;
    const wanted = this.body.contains(document.activeElement);
    const slope = makeElement("span", {}, "…");
    this.render({ ...explanation, goals }, slope);
    if (wanted) this.title.focus();
    const sources = explanation.terms.flatMap(({ factors }) => factors.flatMap(({ places }) => places));
    this.ladder.outline(place, [...sources, ...explanation.compared.flatMap(({ places }) => places)], goals);
    this.ladder.moveCursor(place);
    if (!place.of.startsWith("grad_")) return;
    const { slope: found } = await this.ask("nudge", { place, epsilon: EPSILON }).catch(() => ({}));
    if (version !== this.version || found === undefined) return;
    this.shown.slope = found;
    slope.textContent = format(found);
    const difference = Math.abs(found - explanation.value);
    if (difference > 1e-3 * Math.abs(explanation.value) + 1e-9) {
      slope.after(
        " (they differ: within ±ε a maximum or a ReLU switches, so that there is no one slope here)",
      );
    }
  }

  // "row 3, column 4, channel 0"
  positionText({ of, layer, index }) {
    const shape = this.ladder.shapeOf({ of, layer });
    const position = positionOf(index, shape);
    if (shape.length === 1) {
      const isClass = shape[0] === this.ladder.classNames.length && layer === this.ladder.lastLayer.name;
      return isClass ? `class ${this.ladder.classNames[index]}` : `number ${index}`;
    }
    const axes = shape.length === 4 ? AXES.kernel : shape.length === 3 ? AXES.image : AXES.weight;
    return position.map((value, k) => `${axes[k]} ${value}`).join(", ");
  }

  // "Output of Conv2D (layer 0)"
  arrayText({ of, layer }) {
    if (of === "loss") return "The loss";
    const where = of === "x" || layer === "" ? "" : ` of ${this.ladder.layerText(layer)}`;
    const what =
      {
        x: "Pixel of the image",
        y: "Output",
        grad_y: "Gradient of the output",
        grad_x: layer === "" ? "Gradient of the image" : "Gradient of the input",
      }[of] ?? (of.startsWith("grad_") ? `Gradient of the ${of.slice(5)}` : `The ${of}`);
    return `${what}${where}`;
  }

  // "Output of Conv2D (layer 0): row 3, column 4, channel 0"
  placeText(place) {
    return place.of === "loss" ? "The loss" : `${this.arrayText(place)}: ${this.positionText(place)}`;
  }

  // "x[3, 4, 0]"
  label(name, place) {
    const position = positionOf(place.index, this.ladder.shapeOf(place));
    return place.of === "loss" ? "L" : `${symbolOf(name)}[${position.join(", ")}]`;
  }

  // A button that leads to a place, or plain text if there is none.
  link(text, places, title, className = "number") {
    if (places.length !== 1) return makeElement("span", { className, title: title ?? "" }, text);
    const button = makeElement("button", { type: "button", className }, text);
    button.title = `${title ? `${title}: ` : ""}${this.placeText(places[0])}`;
    button.setAttribute("aria-label", `${text}. ${button.title}`);
    button.onclick = () => this.pick(places[0], { scroll: true });
    return button;
  }

  render({ place, rule, value, terms, compared, goals }, slope) {
    const sum = terms.reduce((total, { product }) => total + product, 0);
    const isGradient = place.of.startsWith("grad_");
    this.shown = { place, value, sum: terms.length ? sum : null, terms: terms.length };
    const equations =
      rule.type === "loss" ? LOSS_EQUATIONS[this.ladder.lossName] : (EQUATIONS[rule.type] ?? ELEMENTWISE);
    const of = rule.of === "grad_y" && rule.type !== "loss" && rule.type !== "residual" ? "grad_x" : rule.of;
    const hasBias =
      !["conv2d", "dense"].includes(rule.type) || this.ladder.layers.get(rule.layer).arrays.bias;
    const equation = hasBias ? equations[of] : equations[of]?.replace("b[o] + ", "");
    const section = equations.section ?? "6. Activations";
    const parts = [
      makeElement("p", { className: "what" }, this.placeText(place)),
      makeElement(
        "p",
        { className: "value-line" },
        makeElement("strong", {}, format(value)),
        this.pairLink(place),
      ),
    ];
    const enlarged = this.enlarged(place);
    if (enlarged) parts.push(enlarged);
    if (isGradient) parts.push(this.meaning(place, value));
    if (terms.length) {
      const reader = isGradient && rule.type !== "loss" ? this.readerText(place, rule, of) : "";
      if (reader) parts.push(makeElement("p", { className: "note" }, reader));
      if (equation) parts.push(makeElement("p", { className: "equation" }, equation));
      if (rule.of === "grad_y" && equations.why) {
        parts.push(makeElement("p", { className: "note" }, equations.why));
      }
      parts.push(...this.sumOf({ place, rule, value, terms, compared }, sum));
      const from = `docs/mathematics.md, “${section}”`;
      const link = makeElement("a", { href: `${MATHEMATICS}#${anchorOf(section)}` }, from);
      parts.push(makeElement("p", { className: "note" }, "Why: ", link));
    } else parts.push(makeElement("p", {}, this.given(place)));
    const goesTo = this.goalsText(goals);
    if (goesTo) parts.push(goesTo);
    if (isGradient) {
      const numbers = makeElement("dl", { className: "check" });
      const row = (term, ...text) =>
        numbers.append(makeElement("dt", {}, term), makeElement("dd", {}, ...text));
      row("by formula", format(value));
      row("by nudging ±ε", slope);
      parts.push(numbers);
      const how =
        "The loss, computed with this number a hundred-thousandth larger and smaller; the difference over " +
        "2ε.";
      parts.push(makeElement("p", { className: "note" }, how));
    }
    this.body.replaceChildren(...parts);
    const count = `the sum of ${terms.length} ${terms.length === 1 ? "term" : "terms"}`;
    this.status.textContent = `${this.placeText(place)}: ${format(value)}${terms.length ? `, ${count}` : ""}.`;
  }

  // The same number is ȳ for the layer that made it, and x̄ for the one that reads it.
  readerText({ of, layer }, rule, equationOf) {
    if (of !== "grad_y" || equationOf !== "grad_x") return "";
    const [maker, reader] = [layer, rule.layer].map((name) => this.ladder.layerText(name));
    return `ȳ of ${maker} is x̄ of ${reader}, which reads it:`;
  }

  // The numbers that it goes to, as links, one for each array; framed with dashes. Null if there are none.
  goalsText(goals) {
    const arrays = new Map();
    for (const goal of goals) {
      const key = keyOf(goal);
      arrays.set(key, [...(arrays.get(key) ?? []), goal]);
    }
    if (!arrays.size) return null;
    const links = [...arrays.values()].flatMap((places, k) => {
      const [{ of, layer }] = places;
      const all = this.arrayText({ of, layer });
      const count = places.length.toLocaleString("en");
      const text =
        places.length === 1
          ? this.placeText(places[0])
          : `${count} numbers: ${all[0].toLowerCase()}${all.slice(1)}`;
      return [...(k ? ["; "] : []), this.link(text, [places[0]], "", "goal-link")];
    });
    return makeElement(
      "p",
      { className: "goes" },
      makeElement("span", { className: "goal-key" }, "goes to"),
      " ",
      ...links,
    );
  }

  // From a number to its gradient, and back.
  pairLink({ of, layer, index }) {
    const text = (words, target) => [" ", this.link(words, [target], "", "pair-link")];
    const isWeight = !["x", "y", "loss", "grad_x", "grad_y"].includes(of);
    const pair = makeElement("span", {});
    if (of === "x") pair.append(...text("its gradient", { of: "grad_x", layer: "", index }));
    else if (of === "y") pair.append(...text("its gradient", { of: "grad_y", layer, index }));
    else if (of === "grad_y") pair.append(...text("the number itself", { of: "y", layer, index }));
    else if (of === "grad_x" && layer === "")
      pair.append(...text("the pixel itself", { of: "x", layer, index }));
    else if (isWeight && of.startsWith("grad_"))
      pair.append(...text("the number itself", { of: of.slice(5), layer, index }));
    else if (isWeight && this.ladder.layers.get(layer).arrays[of].is_trained) {
      pair.append(...text("its gradient", { of: `grad_${of}`, layer, index }));
    }
    return pair;
  }

  given({ of }) {
    if (of.startsWith("grad_"))
      return "Nothing reads this number, so no path leads from it to the loss: its gradient is 0.";
    if (of === "x") return "A pixel is given: it has no sum. It is (brightness − mean) / deviation.";
    if (of.startsWith("running_"))
      return "A statistic of the training images, gathered while the network was trained.";
    return "A weight has no sum: it started at random, and each step of training added −rate · its gradient.";
  }

  meaning(place, value) {
    const size = 0.01;
    const change = value * size;
    const direction = change < 0 ? "falls" : "rises";
    const what = this.ownerText(place);
    const text =
      value === 0
        ? `0: a small change of ${what} does not change the loss.`
        : `If ${what} grows by ${size}, the loss ${direction} by about ${format(Math.abs(change), 3)}.`;
    return makeElement("p", { className: "meaning" }, text);
  }

  // What a gradient is the gradient of.
  ownerText({ of, layer }) {
    if (of === "grad_x" && layer === "") return "this pixel";
    if (of === "grad_y" || of === "grad_x") return `this ${of === "grad_y" ? "output" : "input"}`;
    return of === "grad_bias" ? "this bias" : "this weight";
  }

  // The map that the number lies in, large enough for a finger; null for arrays that are small anyway.
  enlarged(place) {
    const strip = this.ladder.stripOf(place);
    const found = strip?.layout.find(place.index);
    if (!found || strip.layout.height * strip.layout.width < 30) return null;
    const { at, height, width } = strip.layout;
    const [map] = found;
    const large = new Strip(
      { of: strip.of, layer: strip.layer, label: "The map, enlarged", isHatched: strip.isHatched },
      {
        maps: 1,
        height,
        width,
        at: (_, row, column) => at(map, row, column),
        find: (index) => {
          const cell = strip.layout.find(index);
          return cell && cell[0] === map ? [0, cell[1], cell[2]] : null;
        },
      },
      (next) => this.pick(next).then(() => this.body.querySelector(".enlarged .maps")?.focus()),
    );
    const values = this.ladder.numbers(strip);
    large.paint(values, this.ladder.scaleOf(strip, values), this.ladder.palette, this.ladder.closedOf(strip));
    large.cursor = large.layout.find(place.index);
    large.frame([place.index], "chosen");
    large.element.classList.add("enlarged");
    return large.element;
  }

  // The terms, as grids where there are windows, else as a table; and the total.
  sumOf({ rule, value, terms, compared }, sum) {
    const layer = this.ladder.layers.get(rule.layer);
    const parts = [];
    const isGrid = rule.of === "y" && rule.type === "conv2d" && layer.kernel_size[1] <= 7;
    if (compared.length) parts.push(this.comparison(layer, rule, value, compared));
    if (isGrid) parts.push(...this.windowGrids(layer, terms));
    else {
      if (rule.of === "grad_kernel") parts.push(this.productMaps(layer, terms));
      parts.push(this.table(terms));
    }
    const isEqual =
      Math.abs(sum - value) <=
      2 ** -22 * Math.max(Math.abs(value), ...terms.map(({ product }) => Math.abs(product)));
    const what = terms.length > 1 || isGrid ? "sum" : "result";
    const strong = makeElement("strong", {}, format(sum));
    const end = isEqual ? ", the number shown" : `; the number shown is ${format(value)}`;
    parts.push(makeElement("p", { className: "total equal" }, `${what} = `, strong, end));
    return parts;
  }

  // "x[0, 1] · W[1, 2] = product" for the largest terms, and the sum of the others.
  table(terms, first = SHOWN_TERMS) {
    const order = [...terms].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
    const shown = order.length <= first + 2 ? order : order.slice(0, first);
    const rest = order.slice(shown.length);
    const rows = shown.map(({ factors, product }) => {
      const cells = factors.flatMap(({ name, value, places }, k) => {
        const text =
          places.length === 1
            ? this.label(this.isNamed(name, places[0]) ? name : places[0].of, places[0])
            : name;
        const caption = places.length === 1 && !this.isNamed(name, places[0]) ? name : text;
        const cell = makeElement("span", { className: "factor" }, this.link(format(value), places, caption));
        if (caption !== format(value)) cell.append(makeElement("small", {}, caption));
        return k ? [makeElement("span", { className: "sign" }, "·"), cell] : [cell];
      });
      const result = makeElement(
        "td",
        { className: `product ${product < 0 ? "minus" : "plus"}` },
        format(product),
      );
      return makeElement(
        "tr",
        {},
        makeElement("td", {}, makeElement("span", { className: "factors" }, ...cells)),
        result,
      );
    });
    if (rest.length) {
      const sum = rest.reduce((total, { product }) => total + product, 0);
      const text = `${rest.length.toLocaleString("en")} more sum to`;
      rows.push(
        makeElement(
          "tr",
          { className: "rest" },
          makeElement("td", {}, text),
          makeElement("td", { className: "product" }, format(sum)),
        ),
      );
    }
    if (terms.length === 1) {
      rows[0].querySelector(".product").replaceChildren(); // it stands below
      rows[0].querySelector(".product").classList.add("none");
    }
    const noun = nounOf(terms);
    const title =
      terms.length === 1
        ? ""
        : rest.length
          ? `the ${shown.length} largest of ${terms.length.toLocaleString("en")} ${noun}`
          : `the ${noun}`;
    const caption = makeElement("caption", {}, title);
    return makeElement("table", { className: "terms" }, caption, makeElement("tbody", {}, ...rows));
  }

  isNamed(name, { of }) {
    return name === of || name === "x";
  }

  // Inputs, kernel and products as grids, for the input channels with the largest sums; then the bias.
  windowGrids(layer, terms) {
    const [height, width] = layer.kernel_size;
    const inGroup = layer.arrays.kernel.shape[2];
    const products = terms.slice(0, height * width * inGroup);
    const channels = range(inGroup).map((c) => {
      const own = products.filter((_, k) => k % inGroup === c);
      return { c, own, sum: own.reduce((total, { product }) => total + product, 0) };
    });
    channels.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    const shown = channels.slice(0, inGroup <= 3 ? 3 : 2);
    const rest = channels.slice(shown.length);
    const parts = shown.map(({ c, own, sum }) => {
      const largest = [0, 1].map((f) => Math.max(...own.map(({ factors }) => Math.abs(factors[f].value))));
      largest.push(Math.max(...own.map(({ product }) => Math.abs(product))));
      const cell = (value, scale, places) => {
        const element = this.link(shortened(value), places, format(value));
        element.classList.add("cell");
        const share = scale > 0 ? Math.round((60 * Math.abs(value)) / scale) : 0;
        element.style.setProperty("--tint", `${share}%`);
        element.classList.add(value < 0 ? "minus" : "plus");
        return element;
      };
      const of = (f) => own.map(({ factors }) => cell(factors[f].value, largest[f], factors[f].places));
      const grids = [
        ["x", of(0)],
        ["k", of(1)],
        ["x · k", own.map(({ product }) => cell(product, largest[2], []))],
      ].map(([title, cells]) => {
        return makeElement(
          "div",
          {},
          makeElement("h5", {}, title),
          makeGrid(cells, width, `${title}, ${height} x ${width} numbers`),
        );
      });
      const name =
        inGroup > 1
          ? `input channel ${c}: the products sum to ${format(sum)}`
          : `the products sum to ${format(sum)}`;
      const columns = makeElement("div", { className: width > 3 ? "window tall" : "window" }, ...grids);
      return makeElement("div", {}, columns, makeElement("p", { className: "total" }, name));
    });
    if (rest.length) {
      const sum = rest.reduce((total, channel) => total + channel.sum, 0);
      parts.push(
        makeElement(
          "p",
          { className: "total" },
          `the other ${rest.length} input channels sum to ${format(sum)}`,
        ),
      );
    }
    const bias = terms[products.length];
    if (bias) {
      parts.push(
        makeElement(
          "p",
          { className: "total" },
          "bias ",
          this.link(format(bias.product), bias.factors[0].places, "b"),
        ),
      );
    }
    return parts;
  }

  // A kernel's gradient: the two maps, and their products place by place.
  productMaps(layer, terms) {
    const [height, width] = layer.shape;
    const maps = [
      ["ȳ", terms.map(({ factors }) => factors[0].value)],
      ["x under this weight", terms.map(({ factors }) => factors[1].value)],
      ["ȳ · x", terms.map(({ product }) => product)],
    ].map(([title, values], k) => {
      const canvas = makeCanvas(width, height);
      const largest = largestOf(values);
      paintValues(canvas, (k) => values[k], largest, this.ladder.palette);
      canvas.setAttribute("role", "img");
      canvas.setAttribute(
        "aria-label",
        `${title}: ${height} x ${width} numbers, the largest ±${format(largest, 3)}`,
      );
      canvas.onclick = (event) => {
        const box = canvas.getBoundingClientRect();
        const cell = (offset, length, count) => Math.min(count - 1, Math.floor((offset / length) * count));
        const place = cell(event.offsetY, box.height, height) * width + cell(event.offsetX, box.width, width);
        const [target] = terms[place].factors[k === 1 ? 1 : 0].places;
        if (target) this.pick(target, { scroll: true });
      };
      const scale = makeElement("small", {}, `±${format(largest, 2)}`);
      return makeElement("div", {}, makeElement("h5", {}, title), canvas, scale);
    });
    return makeElement("div", { className: "window products" }, ...maps);
  }

  // The numbers that a maximum was chosen from, the winner ringed.
  comparison(layer, rule, value, compared) {
    const winner = compared.findIndex((one) => one.value === value);
    if (compared.length > 49) {
      return makeElement(
        "p",
        {},
        `The largest of ${compared.length.toLocaleString("en")} numbers; the first one, if several are.`,
      );
    }
    const [height, width] = layer.kernel_size ?? [1, compared.length];
    const columns = compared.length === height * width ? width : compared.length;
    const cells = compared.map((one, k) => {
      const element = this.link(format(one.value, 3), one.places);
      element.classList.add("cell");
      if (k === winner) element.classList.add("winner");
      return element;
    });
    const grid = makeGrid(cells, columns, "The window; its maximum is framed");
    const isTie = compared.filter((one) => one.value === value).length > 1;
    const text = isTie
      ? "Several are equal: the first one wins."
      : "The largest wins; the others count for nothing.";
    return makeElement("div", { className: "pool" }, grid, makeElement("p", { className: "note" }, text));
  }
}
