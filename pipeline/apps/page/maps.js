"use strict";
// Numbers as pictures: one colour for positive, another for negative, stronger the further from 0.

const SHOWN_MAPS = 64; // of a layer at most

// The colours of style.css, as [red, green, blue].
function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => {
    const hex = parseInt(style.getPropertyValue(name).trim().slice(1), 16);
    return [hex >> 16, (hex >> 8) & 255, hex & 255];
  };
  const { matches: isDark } = matchMedia("(prefers-color-scheme: dark)");
  return { positive: read("--positive"), negative: read("--negative"), ink: read("--ink"), isDark };
}

// Fills a canvas with an image of its size: opacity |value(k)| / largest for pixel k, colour by sign.
function paintValues(canvas, value, largest, { positive, negative }) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let k = 0; k < canvas.width * canvas.height; k++) {
    const v = value(k);
    const [red, green, blue] = v < 0 ? negative : positive;
    image.data[4 * k] = red;
    image.data[4 * k + 1] = green;
    image.data[4 * k + 2] = blue;
    image.data[4 * k + 3] = largest > 0 ? (255 * Math.abs(v)) / largest : 0; // a canvas clamps and rounds
  }
  context.putImageData(image, 0, 0);
}

// Fills a canvas with an image of its size: values from 0 to 1, in grey (one channel) or in colour (three).
function paintImage(canvas, values) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const channels = values.length / (canvas.width * canvas.height);
  for (let k = 0; k < canvas.width * canvas.height; k++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * k + c] = 255 * values[k * channels + Math.min(c, channels - 1)];
    }
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// A small element: makeElement("p", {className: "note"}, "text", child, …)
function makeElement(tag, properties, ...content) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...content);
  return element;
}

function makeCanvas(width, height) {
  return makeElement("canvas", { width, height });
}

// The layers in the order in which they are computed: those inside a residual block come before their sum.
function inOrder(layer, depth = 0) {
  const deeper = layer.type === "residual" ? depth + 1 : depth;
  const inside = Object.values(layer.children).flatMap((child) => inOrder(child, deeper));
  return layer.type === "sequential" ? inside : [...inside, { layer, depth }];
}

// One layer's part of the page. An image is shown as one map per channel; a vector as one strip of cells.
class LayerView {
  // A large network has hundreds of maps, so while you draw, only those on the screen are painted.
  static observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) target.view.isVisible = isIntersecting;
  });

  constructor({ layer, depth }) {
    this.layer = layer;
    const [height, width, channels] = layer.shape;
    this.isImage = layer.shape.length === 3;
    if (this.isImage) {
      const count = Math.min(channels, SHOWN_MAPS);
      this.canvases = Array.from({ length: count }, () => makeCanvas(width, height));
    } else {
      const columns = height <= 40 ? height : Math.ceil(Math.sqrt(8 * height));
      this.canvases = [makeCanvas(columns, Math.ceil(height / columns))];
    }
    const size = this.isImage ? `${width} x ${height} x ${channels}` : `${height}`;
    const what = this.isImage ? `${channels} ${channels === 1 ? "map" : "maps"}` : `${height} numbers`;
    const more = this.isImage && channels > SHOWN_MAPS ? `, the first ${SHOWN_MAPS} shown` : "";
    this.range = makeElement("span", { className: "range" });
    this.maps = makeElement("div", { className: this.isImage ? "maps" : "vector" }, ...this.canvases);
    this.maps.style.setProperty("--columns", this.canvases[0].width);
    this.maps.classList.toggle("many", this.canvases.length > 16);
    this.maps.setAttribute("role", "img");
    this.maps.setAttribute("aria-label", `Output of layer ${layer.name}, ${layer.title}: ${what}${more}`);
    this.element = makeElement(
      "section",
      { className: "layer" },
      makeElement("h3", {}, makeElement("span", { className: "name" }, layer.name), ` ${layer.title}`),
      makeElement("p", { className: "note" }, layer.purpose),
      makeElement("p", { className: "shape" }, `${size}${more}`, this.range),
      this.maps,
    );
    this.element.style.setProperty("--depth", depth);
    this.element.view = this;
    LayerView.observer.observe(this.element);
  }

  // Takes the layer's output; null for empty maps. If it is off the screen, the next `paint` shows it.
  show(output, palette) {
    Object.assign(this, { output, palette, isPainted: false });
    if (this.isVisible) this.paint();
  }

  paint() {
    if (this.isPainted) return;
    this.isPainted = true;
    const { output, palette } = this;
    const largest = output?.reduce((a, b) => Math.max(a, Math.abs(b)), 0) ?? 0;
    const step = this.isImage ? this.layer.shape[2] : 1;
    this.canvases.forEach((canvas, c) => {
      paintValues(canvas, (k) => output?.[k * step + c] ?? 0, largest, palette);
    });
    this.range.textContent = output ? ` · full colour at ±${Number(largest.toPrecision(3))}` : "";
  }
}
