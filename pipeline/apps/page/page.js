"use strict";
// The page itself: it sends the picture to the worker, and shows the network's answer.

const content = JSON.parse(document.getElementById("content").textContent);
const { class_names: classNames, image_shape: shape, framing } = content.data;
const byId = (id) => document.getElementById(id);
const indexOfMax = (values) => values.reduce((best, value, k) => (value > values[best] ? k : best), 0);
// Rounded to 100.0 %, a probability would look like certainty.
const percent = (p) => (p >= 0.9995 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`);

function decode(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

// x = (value − mean) / deviation for each channel, in float32 as in preprocess; values are from 0 to 1.
function normalise(values) {
  const [mean, deviation] = [content.data.mean, content.data.deviation].map((list) => list.map(Math.fround));
  const channels = mean.length;
  return Float32Array.from(values, (value, k) => {
    return Math.fround(Math.fround(value) - mean[k % channels]) / deviation[k % channels];
  });
}

// ---- the network, in its worker -------------------------------------------------------------------------

const worker = new Worker(URL.createObjectURL(new Blob([byId("network").textContent])));
const weights = new Float32Array(decode(content.weights).buffer);
worker.postMessage({ network: content.network, weights, shape }, [weights.buffer]);
const waiting = new Map(); // from the id of a request to its callbacks
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.problem) reject(new Error(data.problem));
  else resolve(data);
};
worker.onerror = (event) => showProblem(`The network failed: ${event.message}`);
let asked = 0;

// The worker's answer to one of the tasks of worker.js, such as {outputs, milliseconds}.
function ask(task, values) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ ...values, id: asked, task });
  });
}

// Logits, or logarithms of probabilities, from the last output; never −∞, whose differences have no meaning.
function toLogits(output) {
  return Array.from(output, (y) => (content.gives_probabilities ? Math.log(Math.max(y, 1e-45)) : y));
}

function toProbabilities(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((z) => Math.exp(z - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// ---- what is shown --------------------------------------------------------------------------------------

const SHOWN_CLASSES = 10; // if there are more, only the likeliest five have bars
const allHaveBars = classNames.length <= SHOWN_CLASSES;
const bars = classNames.slice(0, allHaveBars ? SHOWN_CLASSES : 5).map(() => {
  const fill = makeElement("span", { className: "fill" });
  const value = makeElement("span", { className: "value" });
  const label = makeElement("span", { className: "label" });
  const element = makeElement("li", {}, label, makeElement("span", { className: "bar" }, fill), value);
  byId("bars").append(element);
  return { element, fill, value, label };
});
const views = inOrder(content.network).map((entry) => new LayerView(entry));
byId("layers").append(...views.map((view) => view.element));
const [inputCanvas, evidenceCanvas] = [byId("input"), byId("evidence")];
inputCanvas.width = shape[1];
inputCanvas.height = shape[0];
// Canvas pixels per pixel of the image, so that patches can be outlined.
const CELL = Math.max(1, Math.round(336 / Math.max(shape[0], shape[1])));
evidenceCanvas.width = shape[1] * CELL;
evidenceCanvas.height = shape[0] * CELL;
const background = normalise(content.data.background);

let palette = colours();
let probabilities = null; // those shown; null for empty paper
let evidence = null; // likewise

function showProblem(sentence) {
  byId("problem").textContent = sentence;
}

function showInput(image) {
  if (image) paintImage(inputCanvas, image);
  else inputCanvas.getContext("2d").clearRect(0, 0, shape[1], shape[0]);
}

function showAnswer(image, answer, isTestImage) {
  probabilities = answer && toProbabilities(toLogits(answer.outputs[""]));
  const order = classNames.map((_, k) => k);
  if (!allHaveBars && probabilities) order.sort((i, j) => probabilities[j] - probabilities[i]);
  const best = probabilities && indexOfMax(probabilities);
  bars.forEach(({ element, fill, value, label }, row) => {
    const k = order[row];
    const isNamed = allHaveBars || probabilities;
    element.classList.toggle("best", k === best);
    fill.style.width = probabilities ? `${100 * probabilities[k]}%` : "0";
    value.textContent = probabilities ? percent(probabilities[k]) : "–";
    label.textContent = label.title = isNamed ? classNames[k] : "–";
  });
  byId("verdict").textContent = probabilities ? classNames[best] : "–";
  byId("verdict").classList.toggle("long", best !== null && classNames[best].length > 8);
  byId("certainty").textContent = probabilities
    ? `${percent(probabilities[best])}, computed in ${answer.milliseconds.toFixed(1)} ms`
    : "The paper is empty.";
  byId("doubt").textContent = probabilities ? doubt(image, probabilities[best], isTestImage) : "";
  for (const view of views) view.show(answer && answer.outputs[view.layer.name], palette);
}

// Why the answer may mean nothing: the network always names one of its classes. Or "".
function doubt(image, probability, isTestImage) {
  const channels = shape[2];
  const isPlain = content.data.background.every((_, c) => {
    const values = image.filter((_, k) => k % channels === c);
    return values.reduce((a, b) => Math.max(a, b)) - values.reduce((a, b) => Math.min(a, b)) < 0.1;
  });
  if (isPlain) return "The picture is almost of one colour. The network still names one of its classes.";
  const ink = image.reduce((sum, value) => sum + Math.abs(value - content.data.background[0]), 0);
  if (framing === "digit" && ink / image.length > 0.4) {
    return "Almost all is ink. The network still names one of its classes.";
  }
  if (probability >= 0.8) return "";
  const reason = isTestImage ? "" : " Perhaps this is something else than the classes that it knows.";
  return `The network is not sure.${reason}`;
}

// How strongly pixel k is painted under the evidence, from 0 to 1: by its distance from the background or,
// in a picture in colour, by its brightness.
function contrast(image, k) {
  if (shape[2] === 1) return Math.abs(image[k] - content.data.background[0]);
  const [red, green, blue] = image.subarray(3 * k, 3 * k + 3);
  const brightness = 0.299 * red + 0.587 * green + 0.114 * blue;
  return palette.isDark ? brightness : 1 - brightness;
}

function showEvidence(image, found) {
  evidence = found;
  const context = evidenceCanvas.getContext("2d");
  context.clearRect(0, 0, evidenceCanvas.width, evidenceCanvas.height);
  if (!image) return;
  const largest = found ? fullColour(found.perPixel) : 0;
  for (const [value, scale, tint] of [
    [(k) => contrast(image, k), 3, { positive: palette.ink }], // a third as dark as ink
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
  context.lineWidth = 6;
  context.strokeStyle = `rgb(${red} ${green} ${blue})`;
  context.strokeRect(...[patch.left, patch.top, patch.width, patch.height].map((length) => length * CELL));
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

// ---- from the paper to what is shown --------------------------------------------------------------------

const drawing = new Drawing(byId("drawing"), content.data, () => requestUpdate());
let frameRequested = false;
let busy = false; // the worker computes what will be shown
let version = 0; // of the paper; answers for an earlier one are dropped
let settle; // resolves `settled`
let settled = Promise.resolve();

function requestUpdate() {
  if (version++ === shownVersion) settled = new Promise((resolve) => (settle = resolve));
  const { picture } = drawing.state;
  byId("hint").hidden = !drawing.isEmpty;
  byId("undo").disabled = drawing.past.length === 0;
  byId("clear").disabled = drawing.isEmpty;
  byId("shown").textContent = drawing.isEmpty ? "Empty." : (picture?.text ?? "Your drawing.");
  for (const { button, picture: example } of examples) {
    button.setAttribute("aria-pressed", String(example === picture));
  }
  if (frameRequested || busy) return;
  frameRequested = true;
  requestAnimationFrame(update);
}

let shownVersion = 0; // the last version that is shown in full, evidence included

async function update() {
  frameRequested = false;
  busy = true;
  const current = version;
  const image = drawing.image();
  const isTestImage = drawing.state.picture?.isTestImage ?? false;
  const pixels = image && normalise(image);
  showInput(image);
  showEvidence(image, null);
  byId("evidence-text").textContent = "";
  try {
    showAnswer(image, pixels && (await ask("run", { pixels, all: true })), isTestImage);
  } catch (error) {
    showProblem(`The network failed: ${error.message}.`);
    shownVersion = current;
    settle?.();
    return; // the next change tries again
  } finally {
    busy = false;
  }
  if (current !== version) requestAnimationFrame(update);
  else setTimeout(finish, pixels ? 300 : 0, current, image, pixels); // when the pen rests
}

// What is shown only when the drawing pauses: maps off the screen, the evidence, and, to screen readers, the
// prediction.
async function finish(current, image, pixels) {
  if (current !== version) return;
  for (const view of views) view.paint();
  if (pixels) {
    const k = indexOfMax(probabilities);
    byId("announcement").textContent = `Prediction: ${classNames[k]}, ${percent(probabilities[k])}`;
    const logitsOf = async (image) => toLogits((await ask("run", { pixels: image })).outputs[""]);
    let found = null;
    let painted = 0;
    for await (found of gatherEvidence(pixels, shape, background, k, logitsOf)) {
      if (current !== version) return;
      if (performance.now() - painted < 50) continue; // painting takes longer than a small network
      showEvidence(image, found);
      painted = performance.now();
    }
    showEvidence(image, found);
    const told = [];
    if (found.strongest) {
      outline(found.strongest, palette.positive);
      told.push(describePatch(found.strongest, "blue", k));
    }
    if (found.weakest) {
      outline(found.weakest, palette.negative);
      told.push(describePatch(found.weakest, "orange", k));
    }
    byId("evidence-text").textContent = told.join(" ") || "No patch by itself changes the odds by a tenth.";
  } else byId("announcement").textContent = "The paper is empty.";
  shownVersion = current;
  settle?.();
}

byId("undo").onclick = () => drawing.undo();
byId("clear").onclick = () => drawing.clear();
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  drawing.undo();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  palette = colours();
  requestUpdate();
});

// ---- pictures: test images, files, the clipboard and the camera -----------------------------------------

const examples = content.examples.map(({ label, pixels }) => {
  const bytes = decode(pixels);
  const canvas = makeCanvas(shape[1], shape[0]);
  paintImage(canvas, Float32Array.from(bytes, (byte) => byte / 255));
  const picture = { bytes, canvas, text: `Test image: ${classNames[label]}.`, isTestImage: true };
  const button = makeElement("button", { type: "button", title: classNames[label] }, canvas);
  button.setAttribute("aria-label", `Test image of class ${classNames[label]}`);
  button.onclick = () => showPicture(picture);
  byId("examples").append(button);
  return { button, picture };
});
byId("examples-part").hidden = examples.length === 0;

function showPicture(picture) {
  camera.close();
  showProblem("");
  drawing.show(picture);
}

// Shows what a canvas holds, framed as the training images were.
function takePicture(canvas, text) {
  const shown = toCanvas(canvas, canvas.width, canvas.height, SIDE);
  const raster = toRaster(framing === "digit" ? shown : canvas, shape[2]);
  let bytes;
  if (framing === "digit") {
    const ink = frame(inkOf(raster), shape[0], shape[1]);
    if (ink === null) return showProblem("The picture holds no ink: it is of one colour.");
    const [paper] = content.data.background;
    bytes = Uint8ClampedArray.from(ink, (value) => 255 * (paper + value * (drawing.inkValue - paper)));
  } else bytes = fitPicture(raster, shape, framing);
  const border = framing === "pad" ? paddingOf(bytes, shape[2]) : undefined;
  showPicture({ bytes, canvas: shown, text, border });
}

async function takeFile(file) {
  showProblem("");
  try {
    takePicture(await readPicture(file), `${file.name || "A picture"}.`);
  } catch (error) {
    showProblem(error.message);
  }
}

// The files of a drop or a paste: the first one, or a sentence.
function takeTransfer(event, transfer) {
  if (transfer.files.length === 0) {
    if (event.type === "drop") showProblem("That is not a file. Save the picture, and drop its file.");
    return;
  }
  takeFile(transfer.files[0]);
}

const camera = new Camera(byId("preview"), (canvas) => takePicture(canvas, "From the camera."), showProblem);
byId("choose").onclick = () => byId("file").click();
byId("file").onchange = () => {
  if (byId("file").files.length) takeFile(byId("file").files[0]);
  byId("file").value = ""; // so that the same file can be chosen again
};
byId("camera").onclick = () => {
  showProblem("");
  camera.open();
};
Camera.exists().then((exists) => (byId("camera").hidden = !exists));
document.addEventListener("paste", (event) => takeTransfer(event, event.clipboardData));
// A file that is dropped beside the paper would replace the page, so it is taken wherever it falls.
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    byId("paper").classList.toggle("target", type === "dragenter" || type === "dragover");
    if (type === "drop") takeTransfer(event, event.dataTransfer);
  });
}

if (examples.length) drawing.set({ strokes: [], picture: examples[0].picture });
else drawing.paint();

// For tests and for the console. An image is a list of numbers in the order (row, column, channel), as the
// network receives it; `outputs` are by the layers' names, as in the checkpoint, with "" for the last.
window.playground = {
  pixels: () => drawing.image() && normalise(drawing.image()), // the image; null for empty paper
  run: async (pixels) => (await ask("run", { pixels: Float32Array.from(pixels), all: true })).outputs,
  ask, // ask(task, values): see worker.js
  probabilities: () => probabilities, // those shown
  evidence: () => evidence, // the one shown, as in evidence.js
  settled: () => settled, // waits until all that is shown belongs to the paper, evidence included
  frame, // see drawing.js
};
