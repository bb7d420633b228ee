"use strict";
// The page itself: it sends the drawing to the worker, and shows the network's answer.

const content = JSON.parse(document.getElementById("content").textContent);
const { class_names: classNames, image_shape: shape, mean, deviation } = content.data;
const byId = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const indexOfMax = (values) => values.indexOf(Math.max(...values));

function decode(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
}

// ---- the network, in its worker -------------------------------------------------------------------------

const worker = new Worker(URL.createObjectURL(new Blob([byId("network").textContent])));
worker.postMessage({ network: content.network, weights: decode(content.weights), shape });
const waiting = new Map(); // from the id of a request to its callback
worker.onmessage = ({ data }) => {
  waiting.get(data.id)(data);
  waiting.delete(data.id);
};
worker.onerror = (event) => (byId("verdict").textContent = `The network failed: ${event.message}`);
let asked = 0;

// {outputs, milliseconds} for an image; with `all`, the outputs of all layers.
function ask(pixels, all) {
  return new Promise((resolve) => {
    waiting.set(++asked, resolve);
    worker.postMessage({ id: asked, pixels, all });
  });
}

// Logits, or logarithms of probabilities, from the last output; never −∞, whose differences have no meaning.
function toLogits(output) {
  return Array.from(output, (y) => (content.gives_probabilities ? Math.log(Math.max(y, 1e-45)) : y));
}

function toProbabilities(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((z) => Math.exp(z - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// ---- what is shown --------------------------------------------------------------------------------------

const bars = classNames.map((name) => {
  const fill = makeElement("span", { className: "fill" });
  const value = makeElement("span", { className: "value" }, "–");
  const label = makeElement("span", { className: "label" }, name);
  const element = makeElement("li", {}, label, makeElement("span", { className: "bar" }, fill), value);
  byId("bars").append(element);
  return { element, fill, value };
});
const views = inOrder(content.network).map((entry) => new LayerView(entry));
byId("layers").append(...views.map((view) => view.element));
const [inputCanvas, evidenceCanvas] = [byId("input"), byId("evidence")];
inputCanvas.width = shape[1];
inputCanvas.height = shape[0];
const CELL = 12; // canvas pixels per pixel of the image, so that patches can be outlined
evidenceCanvas.width = shape[1] * CELL;
evidenceCanvas.height = shape[0] * CELL;

let palette = colours();
let probabilities = null; // those shown; null for an empty canvas
let evidence = null; // likewise

// The brightness of pixel k, averaged over the channels, at least 0.
function brightness(pixels, k) {
  const channels = shape[2];
  const sum = pixels.subarray(k * channels, (k + 1) * channels).reduce((a, b) => a + b, 0);
  return Math.max(0, (sum / channels) * deviation + mean); // rounding may make black slightly negative
}

function showInput(pixels) {
  paintValues(inputCanvas, (k) => (pixels ? brightness(pixels, k) : 0), 1, { positive: palette.ink });
}

function showAnswer(answer) {
  probabilities = answer && toProbabilities(toLogits(answer.outputs[""]));
  const best = probabilities && indexOfMax(probabilities);
  bars.forEach(({ element, fill, value }, k) => {
    element.classList.toggle("best", k === best);
    fill.style.width = probabilities ? `${100 * probabilities[k]}%` : "0";
    value.textContent = probabilities ? percent(probabilities[k]) : "–";
  });
  byId("verdict").textContent = probabilities ? classNames[best] : "–";
  byId("certainty").textContent = probabilities
    ? `${percent(probabilities[best])}, computed in ${answer.milliseconds.toFixed(1)} ms`
    : "Nothing is drawn yet.";
  for (const view of views) view.show(answer && answer.outputs[view.layer.name], palette);
}

function showEvidence(pixels, found) {
  evidence = found;
  const context = evidenceCanvas.getContext("2d");
  context.clearRect(0, 0, evidenceCanvas.width, evidenceCanvas.height);
  if (!pixels) return;
  const largest = found ? found.perPixel.reduce((a, b) => Math.max(a, Math.abs(b)), 0) : 0;
  for (const [value, scale, tint] of [
    [(k) => brightness(pixels, k), 3, { positive: palette.ink }], // a third as dark as ink
    [(k) => found?.perPixel[k] ?? 0, largest, palette],
  ]) {
    const layer = makeCanvas(shape[1], shape[0]);
    paintValues(layer, value, scale, tint);
    context.imageSmoothingEnabled = false;
    context.drawImage(layer, 0, 0, evidenceCanvas.width, evidenceCanvas.height);
  }
}

function outline({ patch }, [red, green, blue]) {
  const context = evidenceCanvas.getContext("2d");
  context.lineWidth = CELL / 2;
  context.strokeStyle = `rgb(${red} ${green} ${blue})`;
  context.strokeRect(patch.left * CELL, patch.top * CELL, patch.size * CELL, patch.size * CELL);
}

// "Without the patch framed in blue, the odds of 7 would be divided by 38, and the network would say 1."
function describePatch({ weight, logits }, colour, k) {
  const factor = Math.exp(Math.abs(weight));
  const number = factor > 1000 ? "more than 1,000" : factor.toPrecision(3);
  const change = `${weight > 0 ? "divided" : "multiplied"} by ${number}`;
  const said = indexOfMax(logits);
  const other = said === k ? "" : `, and the network would say ${classNames[said]}`;
  return `Without the patch framed in ${colour}, the odds of ${classNames[k]} would be ${change}${other}.`;
}

// ---- from the drawing to what is shown ------------------------------------------------------------------

const drawing = new Drawing(byId("drawing"), content.data, () => requestUpdate());
let frameRequested = false;
let busy = false; // the worker computes what will be shown
let version = 0; // of the drawing; answers for an earlier one are dropped
let settle; // resolves `settled`
let settled = Promise.resolve();

function requestUpdate() {
  if (version++ === shownVersion) settled = new Promise((resolve) => (settle = resolve));
  byId("hint").hidden = !drawing.isEmpty;
  if (frameRequested || busy) return;
  frameRequested = true;
  requestAnimationFrame(update);
}

let shownVersion = 0; // the last version that is shown in full, evidence included

async function update() {
  frameRequested = false;
  busy = true;
  const current = version;
  const pixels = drawing.pixels();
  showInput(pixels);
  showEvidence(pixels, null);
  byId("evidence-text").textContent = "";
  showAnswer(pixels && (await ask(pixels, true)));
  busy = false;
  if (current !== version) requestAnimationFrame(update);
  else setTimeout(finish, 300, current, pixels); // when the pen rests
}

// What is shown only when the drawing pauses: maps off the screen, the evidence, and, to screen readers, the
// prediction.
async function finish(current, pixels) {
  if (current !== version) return;
  for (const view of views) view.paint();
  if (pixels) {
    const k = indexOfMax(probabilities);
    byId("announcement").textContent = `Prediction: ${classNames[k]}, ${percent(probabilities[k])}`;
    const logitsOf = async (image) => toLogits((await ask(image, false)).outputs[""]);
    let found = null;
    for await (found of gatherEvidence(pixels, shape, Math.fround(-mean / deviation), k, logitsOf)) {
      if (current !== version) return;
      showEvidence(pixels, found);
    }
    const told = [];
    if (found?.strongest.weight > 0) {
      outline(found.strongest, palette.positive);
      told.push(describePatch(found.strongest, "blue", k));
    }
    if (found?.weakest.weight < 0) {
      outline(found.weakest, palette.negative);
      told.push(describePatch(found.weakest, "orange", k));
    }
    byId("evidence-text").textContent = told.join(" ");
  } else byId("announcement").textContent = "The canvas is empty.";
  shownVersion = current;
  settle?.();
}

byId("undo").onclick = () => drawing.undo();
byId("clear").onclick = () => drawing.clear();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  palette = colours();
  requestUpdate();
});

for (const { label, pixels: encoded } of content.examples) {
  const pixels = decode(encoded);
  const picture = makeCanvas(shape[1], shape[0]);
  paintValues(picture, (k) => brightness(pixels, k), 1, { positive: [0, 0, 0] });
  const button = makeElement("button", { type: "button" }, picture);
  button.setAttribute("aria-label", `Test image of class ${classNames[label]}`);
  button.onclick = () => drawing.show({ pixels, brightness: picture });
  byId("examples").append(button);
}
byId("examples-part").hidden = content.examples.length === 0;
byId("classes").textContent = classNames.join(", ");
byId("architecture").textContent = content.architecture;
byId("dataset").textContent = content.data.dataset;
byId("train-size").textContent = content.data.examples.train.toLocaleString("en");
drawing.paint();

// For tests and for the console. An image is a list of numbers in the order (row, column, channel), as the
// network receives it; `outputs` are by the layers' names, as in the checkpoint, with "" for the last.
window.playground = {
  pixels: () => drawing.pixels(), // the image that the network receives; null if nothing is drawn
  run: async (pixels) => (await ask(Float32Array.from(pixels), true)).outputs,
  probabilities: () => probabilities, // those shown
  evidence: () => evidence, // the one shown, as in evidence.js
  settled: () => settled, // waits until all that is shown belongs to the drawing, evidence included
  frame, // see drawing.js
};
