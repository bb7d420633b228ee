"use strict";
// The ladder: a row for each layer, from the image to the loss: its output, its weights and dL/d(output).
//
// A place is a number's address, {of, layer, index}, as in terms.js.

const keyOf = ({ of, layer }) => `${of}|${layer}`;
const nameOfArray = (layer, key) => (layer ? `${layer}.${key}` : key);

// How the numbers of an array are laid out as maps, {maps, height, width, at, find}: `at` gives the index of
// the number of a map in a row and a column, or −1 beside the last one; `find` is its inverse, or null if the
// number is not shown.

// An image: a map for each channel.
function mapsOf([height, width, channels]) {
  return {
    maps: Math.min(channels, SHOWN_MAPS),
    height,
    width,
    at: (map, row, column) => (row * width + column) * channels + map,
    find: (index) => {
      const pixel = Math.floor(index / channels);
      const map = index % channels;
      return map < SHOWN_MAPS ? [map, Math.floor(pixel / width), pixel % width] : null;
    },
  };
}

// A vector: lines of numbers, one below the other.
function linesOf(length) {
  const width = length <= 16 ? length : Math.ceil(Math.sqrt(2 * length));
  return {
    maps: 1,
    height: Math.ceil(length / width),
    width,
    at: (_, row, column) => (row * width + column < length ? row * width + column : -1),
    find: (index) => [0, Math.floor(index / width), index % width],
  };
}

const layoutOf = (shape) => (shape.length === 3 ? mapsOf(shape) : linesOf(shape[0]));

// All kernels of a small convolution, kernel after kernel; of a large one, those of output channel `chosen`.
function kernelsOf([height, width, inGroup, out], chosen) {
  const isWhole = chosen === undefined;
  return {
    maps: Math.min(isWhole ? inGroup * out : inGroup, SHOWN_MAPS),
    height,
    width,
    at: (map, row, column) => {
      const [c, o] = isWhole ? [map % inGroup, Math.floor(map / inGroup)] : [map, chosen];
      return ((row * width + column) * inGroup + c) * out + o;
    },
    find: (index) => {
      const [tap, c, o] = [Math.floor(index / out / inGroup), Math.floor(index / out) % inGroup, index % out];
      const map = isWhole ? o * inGroup + c : c;
      const isShown = (isWhole || o === chosen) && map < SHOWN_MAPS;
      return isShown ? [map, Math.floor(tap / width), tap % width] : null;
    },
  };
}

// The weights of output `chosen` of a dense layer, laid out as its input is.
function weightsOf(inputShape, out, chosen) {
  const input = layoutOf(inputShape);
  return {
    ...input,
    at: (...place) => (input.at(...place) < 0 ? -1 : input.at(...place) * out + chosen),
    find: (index) => (index % out === chosen ? input.find(Math.floor(index / out)) : null),
  };
}

// Maps of one array side by side, in which numbers can be chosen: with a pointer, or by the arrow keys. All
// of its maps are one stop of the Tab key; the arrows lead from one map to the next.
class Strip {
  // `about` has of, layer and label, and isHatched if cells can be closed; `onPick` receives a place.
  constructor(about, layout, onPick) {
    Object.assign(this, about, { onPick, cursor: null });
    this.maps = makeElement("div", { className: "maps", tabIndex: 0 });
    this.maps.setAttribute("role", "application");
    this.maps.setAttribute("aria-roledescription", "numbers as colours");
    this.scale = makeElement("p", { className: "scale" });
    this.element = makeElement("div", { className: "strip" }, this.maps, this.scale);
    this.setLayout(layout);
    this.maps.addEventListener("click", (event) => {
      const map = this.canvases.indexOf(event.target);
      if (map < 0) return;
      const { width, height } = event.target.getBoundingClientRect();
      const cell = (offset, length, count) =>
        Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
      const row = cell(event.offsetY, height, this.layout.height);
      this.pick([map, row, cell(event.offsetX, width, this.layout.width)]);
    });
    this.maps.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const next = this.cursor ? this.moved(event.key) : event.key.match(/^(Arrow|Enter| )/) && [0, 0, 0];
      if (!next) return;
      event.preventDefault();
      this.pick(next);
    });
  }

  setLayout(layout) {
    this.layout = layout;
    const cell = this.isHatched ? HATCHED : 1;
    this.canvases = range(layout.maps).map(() => makeCanvas(layout.width * cell, layout.height * cell));
    this.maps.classList.toggle("hatched", cell > 1);
    this.maps.replaceChildren(
      ...this.canvases.map((canvas) => makeElement("div", { className: "map" }, canvas)),
    );
    const { width, height, maps } = layout;
    this.maps.classList.toggle("wide", maps === 1 && width > 2 * height);
    this.maps.classList.toggle("single", maps === 1);
    this.maps.classList.toggle("tiny", maps > 1 && width <= 7);
    this.maps.style.setProperty("--columns", width);
    const count = `${maps === 1 ? "" : `${maps} maps of `}${height} x ${width} numbers`;
    this.maps.setAttribute("aria-label", `${this.label}: ${count}. Arrow keys choose a number.`);
    this.places = null;
  }

  // The cursor after a key; undefined for other keys.
  moved(key) {
    const [map, row, column] = this.cursor;
    const { maps, height, width } = this.layout;
    const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const beside = (step) => {
      const to = column + step;
      if (to >= 0 && to < width) return [map, row, to];
      const other = clamp(map + step, maps);
      return other === map ? this.cursor : [other, row, step > 0 ? 0 : width - 1];
    };
    return {
      ArrowLeft: () => beside(-1),
      ArrowRight: () => beside(1),
      ArrowUp: () => [map, clamp(row - 1, height), column],
      ArrowDown: () => [map, clamp(row + 1, height), column],
      PageUp: () => [clamp(map - 1, maps), row, column],
      PageDown: () => [clamp(map + 1, maps), row, column],
      Home: () => [map, row, 0],
      End: () => [map, row, width - 1],
    }[key]?.();
  }

  pick(cursor) {
    const index = this.layout.at(...cursor);
    if (index < 0) return;
    this.cursor = cursor;
    this.onPick({ of: this.of, layer: this.layer, index });
  }

  // For each cell of a map the index of its number.
  placesOf(map) {
    const { at, height, width } = this.layout;
    return Int32Array.from({ length: height * width }, (_, k) => at(map, Math.floor(k / width), k % width));
  }

  // `scale` is {largest, isLogarithmic}; isClosed(index) says which numbers are hatched.
  paint(values, scale, palette, isClosed = null) {
    this.places ??= this.canvases.map((_, map) => this.placesOf(map));
    this.canvases.forEach((canvas, map) => {
      const places = this.places[map];
      const value = values ? (k) => (places[k] < 0 ? 0 : values[places[k]]) : () => 0;
      const closed = this.isHatched
        ? (k) => isClosed !== null && places[k] >= 0 && isClosed(places[k])
        : null;
      paintValues(canvas, value, scale.largest, palette, scale.isLogarithmic, closed);
    });
    this.scale.textContent = values ? `full colour: ±${format(scale.largest, 3)}` : "";
  }

  // Frames numbers: the chosen one, and those it comes from. Numbers that fill a rectangle get one frame.
  frame(indices, className) {
    const byMap = new Map();
    for (const index of indices) {
      const found = this.layout.find(index);
      if (!found) continue;
      const [map, row, column] = found;
      const box = byMap.get(map) ?? { top: row, bottom: row, left: column, right: column, cells: new Set() };
      box.top = Math.min(box.top, row);
      box.bottom = Math.max(box.bottom, row);
      box.left = Math.min(box.left, column);
      box.right = Math.max(box.right, column);
      box.cells.add(row * this.layout.width + column);
      byMap.set(map, box);
    }
    for (const [map, { top, bottom, left, right, cells }] of byMap) {
      const area = (bottom - top + 1) * (right - left + 1);
      const isSparse = cells.size * 2 < area && cells.size <= 32;
      const boxes = isSparse
        ? [...cells].map((cell) => [Math.floor(cell / this.layout.width), cell % this.layout.width, 1, 1])
        : [[top, left, bottom - top + 1, right - left + 1]];
      for (const [row, column, height, width] of boxes) {
        const element = makeElement("div", { className: `frame ${className}` });
        const share = (value, count) => `${(100 * value) / count}%`;
        element.style.top = share(row, this.layout.height);
        element.style.left = share(column, this.layout.width);
        element.style.height = share(height, this.layout.height);
        element.style.width = share(width, this.layout.width);
        this.canvases[map].parentElement.append(element);
      }
    }
  }

  unframe() {
    for (const element of this.maps.querySelectorAll(".frame")) element.remove();
  }
}

// The chooser of an output channel or unit whose weights are shown.
function makeChooser(text, names, onChange) {
  const select = makeElement("select", {}, ...names.map((name, k) => new Option(name, k)));
  select.onchange = () => onChange(Number(select.value));
  return { select, element: makeElement("label", { className: "chooser" }, `${text} `, select) };
}

// One row. A large network has hundreds of maps, so while you draw, only the rows on the screen are painted.
class Row {
  static observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.row.isVisible = isIntersecting;
      if (isIntersecting) target.row.paint();
    }
  });

  constructor(ladder, { name, title, purpose, size, depth, titles }) {
    Object.assign(this, { ladder, name, strips: [] });
    this.columns = Object.fromEntries(
      ["forward", "weights", "backward"].map((column) => {
        const heading = titles[column] ? [makeElement("h4", {}, titles[column])] : [];
        return [column, makeElement("div", { className: `column ${column}` }, ...heading)];
      }),
    );
    this.element = makeElement(
      "section",
      { className: "layer" },
      makeElement("h3", {}, makeElement("span", { className: "name" }, name), ` ${title}`),
      makeElement("p", { className: "note" }, purpose),
      makeElement("p", { className: "shape" }, size),
      makeElement("div", { className: "columns" }, ...Object.values(this.columns)),
    );
    this.element.dataset.layer = name;
    this.element.style.setProperty("--depth", depth);
    this.element.row = this;
    Row.observer.observe(this.element);
  }

  add(column, about, layout, parent = this.columns[column]) {
    const strip = new Strip(about, layout, this.ladder.onPick);
    this.strips.push(strip);
    this.ladder.strips.set(keyOf(about), strip);
    parent.append(strip.element);
    return strip;
  }

  // Shows the ladder's numbers; off the screen, as soon as it is seen.
  show() {
    this.isPainted = false;
    if (this.isVisible) this.paint();
  }

  paint() {
    if (this.isPainted) return;
    this.isPainted = true;
    for (const strip of this.strips) {
      const values = this.ladder.numbers(strip);
      if (!values && this.ladder.isPartial) continue; // until the pen rests, the last ones stay
      strip.paint(
        values,
        this.ladder.scaleOf(strip, values),
        this.ladder.palette,
        this.ladder.closedOf(strip),
      );
    }
    this.afterPaint?.();
  }
}

const POWER = "e^(z − max)"; // a column that narrow screens leave out

const largestOf = (values) => values?.reduce((a, b) => Math.max(a, Math.abs(b)), 0) ?? 0;

class Ladder {
  // `network` is the description of the whole network, `shape` that of the image; `onPick` receives a place.
  constructor(parent, { network, shape, classNames, lossName, givesProbabilities }, onPick) {
    Object.assign(this, { parent, network, shape, classNames, lossName, givesProbabilities, onPick });
    Object.assign(this, { strips: new Map(), aliases: new Map(), layers: new Map(), inputs: new Map() });
    Object.assign(this, { pass: null, pixels: null, arrays: {}, isShared: false, palette: colours() });
    this.connect(network, shape, null);
    this.entries = inOrder(network);
    this.rows = [this.imageRow(), ...this.entries.map((entry) => this.layerRow(entry)), this.lossRow()];
    parent.append(...this.rows.map((row) => row.element));
  }

  // Notes each layer by name, the shape of its input, and where numbers under two names are shown: a
  // sequential's output is that of its last layer, and dL/d(input) is dL/d(output) of the layer before.
  connect(layer, shape, before) {
    this.layers.set(layer.name, layer);
    this.inputs.set(layer.name, shape);
    const children = Object.values(layer.children);
    if (layer.name !== "" && before) this.aliases.set(keyOf({ of: "grad_x", layer: layer.name }), before);
    if (layer.type === "sequential" && children.length) {
      const last = children.at(-1).name;
      for (const of of ["y", "grad_y"])
        this.aliases.set(keyOf({ of, layer: layer.name }), { of, layer: last });
      let [source, inner] = [layer.name === "" ? { of: "grad_x", layer: "" } : before, shape];
      for (const child of children) {
        this.connect(child, inner, source);
        source = { of: "grad_y", layer: child.name };
        inner = child.shape;
      }
    } else for (const child of children) this.connect(child, shape, null);
  }

  // The strip that shows the numbers of a place, and the index there; undefined if none does.
  stripOf(place) {
    let found = place;
    for (let k = 0; found && k < 20; k++) {
      const strip = this.strips.get(keyOf(found));
      if (strip) return strip;
      found = this.aliases.get(keyOf(found));
    }
    return undefined;
  }

  get lastLayer() {
    let layer = this.network;
    while (layer.type === "sequential" && Object.keys(layer.children).length) {
      layer = Object.values(layer.children).at(-1);
    }
    return layer;
  }

  // The array that a place is in; null if it is not known (yet).
  numbers({ of, layer }) {
    if (of === "x") return this.pixels;
    if (of === "y" || of === "grad_y" || of === "grad_x") return this.pass?.[of]?.[layer] ?? null;
    if (of.startsWith("grad_")) return this.pass?.gradients?.[nameOfArray(layer, of.slice(5))] ?? null;
    return this.arrays[nameOfArray(layer, of)] ?? null;
  }

  // The shape of that array.
  shapeOf({ of, layer }) {
    if (of === "loss") return [];
    if (of === "x") return this.shape;
    if (of === "y" || of === "grad_y") return this.layers.get(layer).shape;
    if (of === "grad_x") return this.inputs.get(layer);
    return this.layers.get(layer).arrays[of.replace("grad_", "")].shape;
  }

  // On a shared scale, all values of a kind are compared: outputs, gradients of outputs, weights, …
  scaleOf({ of }, values) {
    if (!this.isShared) return { largest: largestOf(values), isLogarithmic: false };
    const kind = (name) => {
      if (["x", "y"].includes(name)) return "values";
      if (["grad_x", "grad_y"].includes(name)) return "gradients of values";
      return name.startsWith("grad_") ? "gradients of weights" : "weights";
    };
    this.largest ??= new Map();
    if (!this.largest.has(kind(of))) {
      const alike = [...this.strips.values()].filter((strip) => kind(strip.of) === kind(of));
      const largest = Math.max(...alike.map((strip) => largestOf(this.numbers(strip))));
      this.largest.set(kind(of), largest);
    }
    return { largest: this.largest.get(kind(of)), isLogarithmic: true };
  }

  // Which numbers of a strip ReLU does not pass on, so that their gradients stop there; null if none does.
  closedOf({ isHatched, layer }) {
    const y = isHatched && this.numbers({ of: "y", layer });
    return y ? (index) => !(y[index] > 0) : null;
  }

  imageRow() {
    const [height, width, channels] = this.shape;
    const row = new Row(this, {
      name: "",
      title: "The image",
      purpose: "What the network receives, after normalisation: (brightness − mean) / deviation.",
      size: `${height} x ${width} x ${channels}`,
      depth: 0,
      titles: { forward: "x", weights: "", backward: "x̄ = dL/dx: which pixels would raise the loss" },
    });
    row.add("forward", { of: "x", layer: "", label: "The image x" }, mapsOf(this.shape));
    row.add(
      "backward",
      { of: "grad_x", layer: "", label: "dL/dx, the gradient of the image" },
      mapsOf(this.shape),
    );
    row.columns.weights.append(makeElement("p", { className: "none" }, "No weights: a picture is given."));
    return row;
  }

  layerRow({ layer, depth }) {
    const [height, width, channels] = layer.shape;
    const maps = channels === 1 ? "1 map" : `${channels} maps (channels)`;
    const size = layer.shape.length === 3 ? `${maps} of ${height} x ${width}` : `${height} numbers`;
    const more = channels > SHOWN_MAPS ? `, the first ${SHOWN_MAPS} shown` : "";
    const meaning = this.titleText(layer);
    const y = layer === this.lastLayer && !this.givesProbabilities ? "z" : "y";
    const row = new Row(this, {
      name: layer.name,
      title: layer.title,
      purpose: layer.purpose,
      size: `${meaning ? `${meaning}. ` : ""}Output: ${size}${more}.`,
      depth,
      titles: {
        forward: `output ${y}`,
        weights: "weights, and their gradients",
        backward: `${overlined(y)} = dL/d${y}`,
      },
    });
    const about = (of, text) => ({
      of,
      layer: layer.name,
      label: `${text} of layer ${layer.name}, ${layer.title}`,
    });
    row.add("forward", about("y", "Output"), layoutOf(layer.shape));
    const isHatched = layer.type === "relu";
    row.add("backward", { ...about("grad_y", "Gradient of the output"), isHatched }, layoutOf(layer.shape));
    const arrays = Object.entries(layer.arrays ?? {});
    if (!arrays.length) {
      const text = makeElement("p", { className: "none" }, "No weights.");
      row.columns.weights.append(text);
      const paintWinners =
        ["max_pool2d", "global_max_pool2d"].includes(layer.type) && this.addWinners(row, layer);
      row.afterPaint = () => {
        text.textContent = `No weights. ${this.selection(layer)}`;
        if (paintWinners) paintWinners();
      };
    }
    for (const [key, { shape, is_trained: isTrained }] of arrays) {
      this.addWeights(row, layer, key, shape, isTrained, about);
    }
    return row;
  }

  // What part of its numbers a layer without weights lets the gradient through to.
  selection(layer) {
    const y = this.numbers({ of: "y", layer: layer.name });
    if (!y) return "";
    const percent = (part, whole) => `${((100 * part) / whole).toFixed(0)} %`;
    if (layer.type === "relu") {
      const open = y.reduce((count, value) => count + (value > 0), 0);
      return (
        `${percent(open, y.length)} of its numbers are above 0: these alone pass the gradient back. The ` +
        "others are closed: hatched in ȳ."
      );
    }
    const [height, width] = this.inputs.get(layer.name);
    if (layer.type !== "max_pool2d") return "";
    return (
      "The winner of each window alone gets the gradient: at most " +
      `${percent(layer.shape[0] * layer.shape[1], height * width)} of the numbers before.`
    );
  }

  // The maps before a layer that takes maxima, with the winners marked; returns what paints them.
  addWinners(row, layer) {
    const layout = mapsOf(this.inputs.get(layer.name));
    const label = "the winners in the maps before";
    const strip = new Strip({ label }, layout, () => {});
    const { maps, canvases } = strip;
    const places = canvases.map((_, map) => strip.placesOf(map));
    maps.removeAttribute("aria-roledescription");
    maps.removeAttribute("tabindex");
    maps.setAttribute("role", "img");
    maps.setAttribute("aria-label", `${label}: ${layout.maps} maps of ${layout.height} x ${layout.width}`);
    maps.classList.add("winners");
    row.columns.weights.append(makeElement("h5", {}, label), maps);
    return () => {
      const won = this.pass?.won?.[layer.name];
      if (this.isPartial) return; // until the pen rests, the last ones stay
      canvases.forEach((canvas, map) => {
        paintValues(canvas, (k) => won?.[places[map][k]] ?? 0, 1, { positive: this.palette.ink });
      });
    };
  }

  addWeights(row, layer, key, shape, isTrained, about) {
    const pair = makeElement("div", { className: "pair" });
    const out = shape.at(-1);
    const isKernel = shape.length === 4;
    const hasChooser = isKernel ? shape[2] * out > SHOWN_MAPS : shape.length === 2;
    const layout = (chosen) => {
      if (isKernel) return kernelsOf(shape, hasChooser ? chosen : undefined);
      if (!hasChooser) return linesOf(shape[0]);
      const source = this.shapeBefore(layer);
      return weightsOf(source, out, chosen);
    };
    const of = isTrained ? [key, `grad_${key}`] : [key];
    const symbol = symbolOf(key);
    const texts = isTrained
      ? [`${key} ${symbol}`, `${overlined(symbol)} = dL/d${symbol}`]
      : [`${key} ${symbol} (not trained)`];
    const strips = of.map((name, k) => {
      const part = makeElement("div", {}, makeElement("h5", {}, texts[k]));
      pair.append(part);
      return row.add("weights", about(name, k ? `Gradient of ${key}` : key), layout(0), part);
    });
    if (hasChooser) {
      const isLast = layer === this.lastLayer || out === this.classNames.length;
      const names = range(out).map((o) => (isLast ? this.classNames[o] : String(o)));
      const text = isKernel ? "kernels of output map" : isLast ? "of class" : "of output";
      const choose = (o) => {
        chooser.select.value = o;
        for (const strip of strips) strip.setLayout(layout(o));
        row.show();
        this.onLayout?.();
      };
      const chooser = makeChooser(text, names, choose);
      for (const strip of strips) strip.choose = choose;
      for (const strip of strips) strip.chosen = () => Number(chooser.select.value);
      for (const strip of strips) strip.outputs = out;
      row.columns.weights.append(chooser.element);
      if (isLast) this.classChoosers = [...(this.classChoosers ?? []), choose];
    }
    row.columns.weights.append(pair);
  }

  // The shape of what a dense layer reads, as an image if only flattened since.
  shapeBefore(layer) {
    const all = this.entries ?? inOrder(this.network);
    let k = all.findIndex((entry) => entry.layer === layer) - 1;
    while (k >= 0 && ["flatten", "dropout", "spatial_dropout"].includes(all[k].layer.type)) {
      if (all[k].layer.type === "flatten") return this.inputs.get(all[k].layer.name);
      k--;
    }
    return this.inputs.get(layer.name);
  }

  lossRow() {
    const row = new Row(this, {
      name: "",
      title: "The loss",
      purpose: this.givesProbabilities
        ? "L = −ln ŷ of the right class: 0 if the network is sure of it, large if it is surprised."
        : "Softmax turns the outputs z into probabilities ŷ = e^z / Σ e^z; then L = −ln ŷ of the right class: " +
          "0 if " +
          "the network is sure of it, large if it is surprised.",
      size: "",
      depth: 0,
      titles: { forward: "", weights: "", backward: "" },
    });
    row.element.classList.add("loss");
    this.lossTable = makeElement("div", { className: "scroll", tabIndex: 0 });
    this.lossTable.setAttribute("role", "region");
    this.lossTable.setAttribute("aria-label", "The loss, class by class");
    row.element.lastChild.replaceWith(this.lossTable);
    row.afterPaint = () => this.paintLoss();
    this.lossStrip = row; // framed as a whole
    return row;
  }

  // z, e^(z − max), ŷ, t and ŷ − t of each class, with the loss below.
  paintLoss() {
    const pass = this.pass;
    if (!pass) return this.lossTable.replaceChildren();
    const output = pass.y[""];
    const layer = this.lastLayer.name;
    const largest = output.reduce((a, b) => Math.max(a, b));
    const powers = Array.from(output, (z) => Math.exp(z - largest));
    const sum = powers.reduce((a, b) => a + b);
    const probability = (k) => (this.givesProbabilities ? output[k] : powers[k] / sum);
    let order = range(output.length);
    if (order.length > 24) {
      order = order.sort((i, j) => output[j] - output[i]).filter((k, rank) => rank < 8 || k === pass.label);
    }
    const hasLabel = pass.label !== undefined && pass.label !== null;
    const pickable = (text, place) => {
      const button = makeElement("button", { type: "button", className: "number", tabIndex: -1 }, text);
      button.onclick = () => this.onPick(place);
      return button;
    };
    const rows = order.map((k) => {
      const t = hasLabel && k === pass.label ? 1 : 0;
      const difference = probability(k) - t;
      const bar = makeElement("span", { className: `signed ${difference < 0 ? "minus" : "plus"}` });
      bar.style.width = `${50 * Math.abs(difference)}%`;
      const gradient = pass.grad_y?.[""]?.[k];
      const cells = [
        pickable(format(output[k]), { of: "y", layer, index: k }),
        ...(this.givesProbabilities
          ? []
          : [makeElement("span", { className: "power" }, format(powers[k], 3)), format(powers[k] / sum, 3)]),
        hasLabel ? String(t) : "",
        gradient === undefined ? "" : pickable(format(gradient, 3), { of: "grad_y", layer, index: k }),
      ].map((content) =>
        makeElement("td", { className: content.className === "power" ? "power" : "" }, content),
      );
      const name = makeElement("th", { scope: "row" }, this.classNames[k]);
      return makeElement(
        "tr",
        { className: t ? "right" : "" },
        name,
        ...cells,
        makeElement("td", { className: "bar-cell" }, bar),
      );
    });
    const last = this.givesProbabilities ? "dL/dŷ = −t/ŷ" : "z̄ = ŷ − t";
    const titles = this.givesProbabilities
      ? ["class", "ŷ", "t", last, "ŷ − t as a bar"]
      : ["class", "z", POWER, "ŷ", "t", last, "ŷ − t as a bar"];
    const className = (title) => (title === POWER ? "power" : "");
    const heads = titles.map((title) =>
      makeElement("th", { scope: "col", className: className(title) }, title),
    );
    const head = makeElement("tr", {}, ...heads);
    const table = makeElement(
      "table",
      { className: "losses" },
      makeElement("thead", {}, head),
      makeElement("tbody", {}, ...rows),
    );
    const loss = makeElement("p", { className: "total" });
    if (pass.loss !== undefined) {
      const button = makeElement("button", { type: "button", className: "number" }, format(pass.loss));
      button.onclick = () => this.onPick({ of: "loss", layer: "", index: 0 });
      button.setAttribute("aria-label", `The loss, ${format(pass.loss)}: show its sum`);
      loss.append(`L = −ln ŷ[${this.classNames[pass.label]}] = `, button);
    }
    const shown = this.givesProbabilities ? [] : [`Σ e^(z − max) = ${format(sum)}. `];
    this.lossTable.replaceChildren(
      table,
      loss,
      makeElement("p", { className: "note" }, ...shown, "t is 1 for the class that it should be, else 0."),
    );
  }

  // The layers on the screen, whose numbers are shown while you draw.
  get visible() {
    return this.rows.filter((row) => row.isVisible).map((row) => row.name);
  }

  // Shows a pass of backward.js, or a part of one; `pixels` is null for empty paper.
  show(pass, pixels, palette, isPartial = false) {
    const label = pass?.label;
    if (label !== undefined && label !== null && label !== this.label) {
      this.label = label;
      for (const choose of this.classChoosers ?? []) choose(label);
    }
    Object.assign(this, { pass, pixels, palette, largest: null, isPartial });
    this.parent.classList.toggle("stale", pass !== null && !pass.grad_y);
    for (const row of this.rows) row.show();
  }

  paintAll() {
    for (const row of this.rows) row.paint();
  }

  // Frames the place, those of its terms, and those that it goes to.
  outline(place, sources, goals) {
    for (const strip of this.strips.values()) strip.unframe();
    const framed = [
      ["chosen", [place]],
      ["source", sources],
      ["goal", goals],
    ];
    for (const [className, places] of framed) {
      const byStrip = new Map();
      for (const one of places) {
        const strip = this.stripOf(one);
        if (!strip) continue;
        if (!byStrip.has(strip)) byStrip.set(strip, []);
        byStrip.get(strip).push(one.index);
      }
      for (const [strip, indices] of byStrip) {
        if (className !== "goal") this.reveal(strip, indices);
        strip.frame(indices, className);
      }
    }
    const { classList } = this.rows.at(-1).element;
    classList.toggle("framed", place.of === "loss");
    classList.toggle(
      "goal",
      goals.some(({ of }) => of === "loss"),
    );
  }

  // Lets a strip that shows the weights of one output show some of these numbers, if it shows none of them.
  reveal(strip, indices) {
    if (!strip.choose) return;
    const outputs = new Set(indices.map((index) => index % strip.outputs));
    if (!outputs.has(strip.chosen())) strip.choose(outputs.values().next().value);
  }

  // Moves a strip's cursor to the place, so that arrow keys go on from there.
  moveCursor(place) {
    const strip = this.stripOf(place);
    if (strip) strip.cursor = strip.layout.find(place.index);
    return strip;
  }

  // "Conv2D(1, 8, 3): from 1 channel to 8, by kernels of 3 x 3"; "" if its name says enough.
  titleText({ name, title, type, arrays, groups }) {
    if (type === "dense") {
      const [input, out] = arrays.weight.shape;
      return `${title}: from ${input.toLocaleString("en")} numbers to ${out}`;
    }
    if (type !== "conv2d") return "";
    const [height, width, , out] = arrays.kernel.shape;
    const channels = this.inputs.get(name)[2];
    const parts = groups > 1 ? `, in ${groups} groups` : "";
    const from = `${channels} ${channels === 1 ? "channel" : "channels"}`;
    return `${title}: from ${from} to ${out}, by kernels of ${height} x ${width}${parts}`;
  }

  // "Conv2D (layer 0)"
  layerText(name) {
    const layer = this.layers.get(name);
    return name === "" ? "the network" : `${layer.title.split("(")[0]} (layer ${name})`;
  }
}
