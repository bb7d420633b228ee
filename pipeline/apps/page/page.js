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

// network.js, and once more in double precision for the worker's `nudge`, as EXACT.
const networkText = byId("network").textContent;
const exactText = networkText.replaceAll("Float32Array", "Float64Array");
const workerText = [
  networkText,
  `const EXACT = (() => { ${exactText}; return { forward, REPLACE }; })();`,
  byId("gradients").textContent,
];
const worker = new Worker(URL.createObjectURL(new Blob(workerText)));
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
  const ghost = makeElement("span", { className: "ghost", hidden: true });
  const value = makeElement("span", { className: "value" });
  const label = makeElement("span", { className: "label" });
  const element = makeElement("li", {}, label, makeElement("span", { className: "bar" }, fill, ghost), value);
  byId("bars").append(element);
  return { element, fill, ghost, value, label };
});
const lossName = content.gives_probabilities ? "cross_entropy" : "softmax_cross_entropy";
const about = {
  network: content.network,
  shape,
  classNames,
  lossName,
  givesProbabilities: content.gives_probabilities,
};
const ladder = new Ladder(byId("rows"), about, (place) => lens.pick(place));
const lens = new NumberLens(byId("lens"), ask, ladder);
const walk = new Walk(byId("walk"), lens, ladder, {
  data: content.data,
  rate: () => teacher.rate,
  teach: () => teacher.offer(),
});
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
let ghosts = null; // the probabilities before the last step of learning, until the paper changes

function showProblem(sentence) {
  byId("problem").textContent = sentence;
}

// ---- what it should be ----------------------------------------------------------------------------------

let label = null; // the class that the reader has chosen, or that of a test image; null: the network's answer
let labelled = null; // what it belongs to: a picture, or "drawing"
const labelInputs = classNames.length <= 12 ? makeRadios() : makeSelect();

function makeRadios() {
  const inputs = classNames.map((name, k) => {
    const input = makeElement("input", { type: "radio", name: "label", value: String(k) });
    input.onclick = () => chooseLabel(k); // also if it is checked already, as the network's own answer
    byId("labels").append(makeElement("label", {}, input, makeElement("span", {}, name)));
    return input;
  });
  return (k) => inputs.forEach((input, j) => (input.checked = j === k));
}

function makeSelect() {
  const select = makeElement("select", {}, ...classNames.map((name, k) => new Option(name, k)));
  select.setAttribute("aria-labelledby", "labels-title");
  select.onchange = () => chooseLabel(Number(select.value));
  byId("labels").append(select);
  return (k) => (select.selectedIndex = k ?? -1);
}

function chooseLabel(k) {
  if (drawing.isEmpty) return showLabel();
  label = k;
  requestUpdate();
}

// The label belongs to a picture, or to a drawing as long as strokes are added to it.
function keepLabel() {
  const { picture } = drawing.state;
  const current = picture ?? (drawing.isEmpty ? null : "drawing");
  if (current !== labelled) label = picture?.label ?? null;
  labelled = current;
}

function showLabel() {
  const best = probabilities && indexOfMax(probabilities);
  labelInputs(probabilities ? (label ?? best) : null);
  const question = {
    empty: "Draw something, or choose a test image.",
    asked: `The network's own answer is taken for right. Is it? If not, choose what it should be.`,
    right: "The network agrees.",
    wrong: `The network says ${probabilities && classNames[best]}. You can teach it, below.`,
  };
  const state = !probabilities ? "empty" : label === null ? "asked" : label === best ? "right" : "wrong";
  byId("label-note").textContent = question[state];
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
  bars.forEach(({ element, fill, ghost, value, label }, row) => {
    const k = order[row];
    const isNamed = allHaveBars || probabilities;
    element.classList.toggle("best", k === best);
    fill.style.width = probabilities ? `${100 * probabilities[k]}%` : "0";
    ghost.hidden = !(ghosts?.[k] >= 0.005);
    if (ghosts) ghost.style.width = `${100 * ghosts[k]}%`;
    value.textContent = probabilities ? percent(probabilities[k]) : "–";
    label.textContent = label.title = isNamed ? classNames[k] : "–";
  });
  byId("verdict").textContent = probabilities ? classNames[best] : "–";
  byId("verdict").classList.toggle("long", best !== null && classNames[best].length > 8);
  byId("certainty").textContent = probabilities
    ? `${percent(probabilities[best])}, computed in ${answer.milliseconds.toFixed(1)} ms`
    : "The paper is empty.";
  byId("doubt").textContent = probabilities ? doubt(image, probabilities[best], isTestImage) : "";
  byId("ghost-note").hidden = !ghosts;
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

const drawing = new Drawing(byId("drawing"), content.data, () => {
  ghosts = null;
  requestUpdate();
});
const LIVE = 20; // milliseconds: if the way back takes longer, it waits until the pen rests
let backwardTime = 0; // that the last pass took
const whenShown = []; // functions to call once the next answer is shown
let frameRequested = false;
let busy = false; // the worker computes what will be shown
let version = 0; // of the paper; answers for an earlier one are dropped
let settle; // resolves `settled`
let settled = Promise.resolve();

function requestUpdate() {
  if (version++ === shownVersion) settled = new Promise((resolve) => (settle = resolve));
  const { picture } = drawing.state;
  keepLabel();
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
  const isLive = backwardTime < LIVE;
  try {
    const answer =
      pixels && (await (isLive ? askForPass(pixels, ladder.visible) : ask("run", { pixels, all: true })));
    showAnswer(image, answer, isTestImage);
    showLabel();
    const pass = answer && (answer.pass ?? { y: answer.outputs, label: label ?? indexOfMax(probabilities) });
    ladder.show(pass, pixels, palette, pass !== null);
    teacher.showControls();
    for (const resolve of whenShown.splice(0)) resolve();
  } catch (error) {
    showProblem(`The network failed: ${error.message}.`);
    shownVersion = current;
    settle?.();
    return; // the next change tries again
  } finally {
    busy = false;
  }
  if (current !== version) requestAnimationFrame(update);
  else setTimeout(finish, pixels ? 100 : 0, current, image, pixels); // when the pen rests
}

// {pass, outputs, milliseconds}: a pass of backward.js for what it should be; of some layers, or of all.
async function askForPass(pixels, layers) {
  const answer = await ask("differentiate", { pixels, label, loss: lossName, layers });
  backwardTime = answer.milliseconds;
  return { ...answer, outputs: answer.pass.y };
}

// What is shown only when the drawing pauses: maps off the screen, the evidence, and, to screen readers, the
// prediction.
async function finish(current, image, pixels) {
  if (current !== version) return;
  if (pixels) {
    const { pass } = await askForPass(pixels);
    if (current !== version) return;
    ladder.show(pass, pixels, palette);
  }
  if (!pixels) {
    walk.end();
    lens.close();
  } else {
    await walk.renew();
    await lens.refresh();
  }
  ladder.paintAll();
  if (pixels) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (current !== version) return;
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
// On paper all is light.
for (const [type, isPrinted] of [
  ["beforeprint", true],
  ["afterprint", false],
]) {
  addEventListener(type, () => {
    document.documentElement.classList.toggle("printed", isPrinted);
    palette = colours();
    ladder.show(ladder.pass, ladder.pixels, palette);
    ladder.paintAll();
  });
}

// ---- pictures: test images, files, the clipboard and the camera -----------------------------------------

const examples = content.examples.map(({ label, pixels }) => {
  const bytes = decode(pixels);
  const canvas = makeCanvas(shape[1], shape[0]);
  paintImage(
    canvas,
    Float32Array.from(bytes, (byte) => byte / 255),
  );
  const picture = { bytes, label, canvas, text: `Test image: ${classNames[label]}.`, isTestImage: true };
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

// ---- learning -------------------------------------------------------------------------------------------

let arrays = {}; // of the network, by name, as they are now

async function setArrays() {
  arrays = ladder.arrays = (await ask("weights")).weights;
}

// What is on the paper, for a step of learning; null for empty paper.
function lesson() {
  const image = drawing.image();
  if (!image || !probabilities) return null;
  const bytes = drawing.state.picture?.bytes ?? Uint8ClampedArray.from(image, (value) => 255 * value);
  return { pixels: normalise(image), bytes, label: label ?? indexOfMax(probabilities) };
}

const size = shape[0] * shape[1] * shape[2];
const measuredBytes = decode(content.measured.pixels);
const teacher = new Teacher(byId("teach"), {
  ask,
  lossName,
  classNames,
  shape,
  setArrays,
  lesson,
  arrays: () => arrays,
  examples: examples.map(({ picture }) => picture),
  measured: content.measured.labels.map((label, k) => {
    return { bytes: measuredBytes.subarray(k * size, (k + 1) * size), label };
  }),
  pixelsOf: (bytes) => normalise(Float32Array.from(bytes, (byte) => byte / 255)),
  show: showPicture,
  pick: (place) => lens.pick(place, { scroll: true }),
  chosen: () => lens.place,
  label: (place) =>
    `${place.of}[${positionOf(place.index, ladder.shapeOf(place)).join(", ")}], layer ${place.layer}`,
  ghosts: () => (ghosts = probabilities),
  refresh: () =>
    new Promise((resolve) => {
      whenShown.push(resolve);
      requestUpdate();
    }),
});

// ---- what else can be pressed ---------------------------------------------------------------------------

for (const button of document.querySelectorAll(".start-walk")) button.onclick = () => walk.start();
byId("shared-scale").onchange = (event) => {
  ladder.isShared = event.target.checked;
  ladder.show(ladder.pass, ladder.pixels, palette);
};

// On a phone, the columns of the ladder are tabs.
const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
ladder.onColumn = (column) => {
  byId("layers").dataset.column = column;
  for (const tab of tabs) {
    const isChosen = tab.dataset.column === column;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
  }
};
tabs.forEach((tab, k) => {
  tab.onclick = () => ladder.onColumn(tab.dataset.column);
  tab.onkeydown = ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!step) return;
    const next = tabs[(k + step + tabs.length) % tabs.length];
    next.click();
    next.focus();
  };
});

setArrays();
if (examples.length) drawing.set({ strokes: [], picture: examples[content.first].picture });
else drawing.paint();

// For tests and for the console. An image is a list of numbers in the order (row, column, channel), as the
// network receives it; `outputs` are by the layers' names, as in the checkpoint, with "" for the last.
window.playground = {
  pixels: () => drawing.image() && normalise(drawing.image()), // the image; null for empty paper
  run: async (pixels) => (await ask("run", { pixels: Float32Array.from(pixels), all: true })).outputs,
  ask, // ask(task, values): see worker.js
  probabilities: () => probabilities, // those shown
  evidence: () => evidence, // the one shown, as in evidence.js
  // The number in the lens: {place, value, sum, terms, slope}
  lens: () => (lens.ready ?? Promise.resolve()).then(() => lens.shown),
  pick: (place) => lens.pick(place),
  // What can be clicked: [{of, layer, size}, …]
  strips: () =>
    [...ladder.strips.values()].map(({ of, layer }) => {
      return { of, layer, size: ladder.numbers({ of, layer }).length };
    }),
  settled: () => settled, // waits until all that is shown belongs to the paper, evidence included
  frame, // see drawing.js
};
