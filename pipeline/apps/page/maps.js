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
  const isPrinted = document.documentElement.classList.contains("printed");
  const isDark = !isPrinted && matchMedia("(prefers-color-scheme: dark)").matches;
  return { positive: read("--positive"), negative: read("--negative"), ink: read("--ink"), isDark };
}

const toPixel = ([red, green, blue], opacity) => (opacity << 24) | (blue << 16) | (green << 8) | red;

const DECADES = 4; // that a logarithmic scale of colours shows

const HATCHED = 3; // pixels a side of a cell in a canvas whose cells can be hatched

// Fills a canvas with an image of its size: opacity |value(k)| / largest for pixel k, colour by sign. On a
// logarithmic scale the opacity falls by a quarter with each factor of ten. With isClosed(k), cells have
// HATCHED pixels a side, and those that are closed are hatched.
function paintValues(canvas, value, largest, colours, isLogarithmic = false, isClosed = null) {
  const { positive, negative = positive, ink } = colours;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer); // opacity, blue, green, red: as all browsers have it
  const [plus, minus] = [positive, negative].map((colour) => toPixel(colour, 0));
  const scale = largest > 0 ? 1 / largest : 0;
  const cell = isClosed ? HATCHED : 1;
  const columns = canvas.width / cell;
  const line = isClosed && toPixel(ink, 150);
  for (let k = 0; k < pixels.length / cell ** 2; k++) {
    const v = value(k);
    let share = Math.abs(v) * scale;
    if (isLogarithmic) share = 1 + Math.log10(share) / DECADES;
    const opacity = share > 0 ? Math.round(255 * Math.min(share, 1)) : 0; // and none for NaN
    const pixel = (opacity << 24) | (v < 0 ? minus : plus);
    if (!isClosed) {
      pixels[k] = pixel;
      continue;
    }
    const closed = isClosed(k);
    if (opacity === 0 && !closed) continue; // most are
    const first = Math.floor(k / columns) * cell * canvas.width + (k % columns) * cell;
    for (let i = 0; i < cell; i++) {
      const at = first + i * canvas.width;
      if (opacity > 0) pixels.fill(pixel, at, at + cell);
      if (closed) pixels[at + cell - 1 - i] = line;
    }
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

const range = (length) => Array.from({ length }, (_, k) => k);

// A number to read: four digits, a true minus, and a power of ten if it is very large or small.
function format(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value).replace("-", "−").replace("Infinity", "∞");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    const power = [...String(Number(exponent))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
    return `${Number(mantissa)}·10${power}`.replace("-", "−");
  }
  return String(Number(value.toPrecision(digits))).replace("-", "−");
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
