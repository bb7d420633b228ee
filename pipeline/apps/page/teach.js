"use strict";
// Teach it: steps of SGD in the page, on what is on the paper or on drawings that were kept.

const MOST_KEPT = 10;
const FILE_TYPE = "numpy-cnn drawings";

class Teacher {
  // `page` has: ask, lossName, arrays() and setArrays (the weights by name, as they are now), lesson() (the
  // {pixels, bytes, label} on the paper, or null), examples and measured (lists of {bytes, label}),
  // pixelsOf(bytes), classNames, shape, pick(place), chosen() (the place in the lens, or null), label(place),
  // show(picture), refresh() (shows all again) and ghosts() (keeps the probabilities that are shown now).
  constructor(element, page) {
    Object.assign(this, {
      element,
      page,
      kept: [],
      losses: [],
      steps: 0,
      taken: 0,
      baseline: null,
      isBusy: false,
    });
    const find = (name) => element.querySelector(`.${name}`);
    const names = [
      "rate",
      "rate-text",
      "source",
      "mix",
      "one",
      "ten",
      "undo-step",
      "reset",
      "result",
      "moved",
      "cost",
    ];
    for (const name of [...names, "curve", "kept", "keep", "save", "load", "load-file", "problem", "steps"]) {
      this[name.replace(/-(\w)/g, (_, c) => c.toUpperCase()) + "Part"] = find(name);
    }
    this.ratePart.oninput = () => this.showControls();
    this.sourcePart.onchange = () => this.showControls();
    this.onePart.onclick = () => this.teach(1);
    this.tenPart.onclick = () => this.teach(10);
    this.undoStepPart.onclick = () => this.back("undo");
    this.resetPart.onclick = () => this.back("reset");
    this.keepPart.onclick = () => this.keep();
    this.savePart.onclick = () => this.save();
    this.loadPart.onclick = () => this.loadFilePart.click();
    this.loadFilePart.onchange = async () => {
      const [file] = this.loadFilePart.files;
      this.loadFilePart.value = "";
      if (file) await this.load(file);
    };
    this.showControls();
  }

  get rate() {
    return Number((10 ** Number(this.ratePart.value)).toPrecision(2));
  }

  // What a step learns from.
  chosen() {
    const own = this.sourcePart.value === "kept" ? this.kept : [this.page.lesson()].filter(Boolean);
    const all = this.mixPart.checked ? [...own, ...this.page.examples] : own;
    return own.length ? all.map((example) => this.toExample(example)) : [];
  }

  toExample({ pixels, bytes, label }) {
    return { pixels: pixels ?? this.page.pixelsOf(bytes), label };
  }

  showControls() {
    this.rateTextPart.textContent = String(this.rate);
    this.ratePart.setAttribute("aria-valuetext", String(this.rate));
    const [paper, kept] = this.sourcePart.options;
    kept.disabled = this.kept.length === 0;
    kept.textContent = `the drawings kept (${this.kept.length})`;
    if (kept.disabled) this.sourcePart.value = paper.value;
    const hasLesson = this.sourcePart.value === "kept" ? this.kept.length > 0 : this.page.lesson() !== null;
    this.onePart.disabled = this.tenPart.disabled = this.isBusy || !hasLesson;
    this.undoStepPart.disabled = this.isBusy || this.steps === 0;
    this.resetPart.disabled = this.isBusy || this.taken === 0;
    this.keepPart.disabled = this.page.lesson() === null || this.kept.length >= MOST_KEPT;
    this.savePart.disabled = this.kept.length === 0;
    this.stepsPart.textContent = this.taken
      ? `These weights are ${this.taken} ${this.taken === 1 ? "step" : "steps"} away from the trained ones.`
      : "These are the trained weights.";
  }

  // Leads to the steps of learning.
  offer() {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.element.scrollIntoView({ block: "start", behavior: isStill ? "auto" : "smooth" });
    const [first] = [this.onePart, this.ratePart].filter((part) => !part.disabled);
    first.focus({ preventScroll: true });
  }

  // How many of the measured images are right, now or by the trained weights: asked in parts, so that the
  // page stays quick; null if the weights have changed meanwhile.
  async measure(byTrained) {
    const { measured, ask, lossName } = this.page;
    const { taken } = this;
    let right = 0;
    for (let k = 0; k < measured.length; k += 10) {
      const examples = measured.slice(k, k + 10).map((example) => this.toExample(example));
      right += (await ask("measure", { examples, loss: lossName, byTrained })).right;
      if (taken !== this.taken && !byTrained) return null;
    }
    return right;
  }

  async run(work) {
    if (this.isBusy) return;
    this.isBusy = true;
    this.element.dataset.state = "busy";
    this.problemPart.textContent = "";
    this.showControls();
    try {
      await work();
    } catch (error) {
      this.problemPart.textContent = error.message;
    } finally {
      this.isBusy = false;
      this.showControls();
    }
    await this.showCost();
    if (!this.isBusy) this.element.dataset.state = "idle";
  }

  teach(count) {
    return this.run(async () => {
      const examples = this.chosen();
      const [{ ask, lossName }, learningRate] = [this.page, this.rate];
      const before = this.page.arrays();
      this.page.ghosts();
      const losses = [];
      let slope = 0;
      for (let k = 0; k < count; k++) {
        const { loss, gradients, steps } = await ask("step", { examples, loss: lossName, learningRate });
        if (k === 0) {
          for (const gradient of Object.values(gradients)) for (const g of gradient) slope += g * g;
        }
        losses.push(loss);
        Object.assign(this, { steps, taken: this.taken + 1 });
        this.losses.push(loss);
        if (k % 2 === 1) this.paintCurve();
      }
      const { loss } = await ask("measure", { examples, loss: lossName });
      await this.page.setArrays();
      this.paintCurve(loss);
      this.showResult(losses, loss, -learningRate * slope);
      this.showMoved(before, this.page.arrays());
      await this.page.refresh();
    });
  }

  back(task) {
    return this.run(async () => {
      this.page.ghosts();
      const { steps } = await this.page.ask(task, {});
      this.taken = task === "undo" ? this.taken - 1 : 0;
      this.steps = steps;
      if (task === "undo") this.losses.pop();
      else this.losses = [];
      await this.page.setArrays();
      this.paintCurve();
      this.resultPart.textContent =
        task === "undo" ? "The last step is undone." : "The trained weights are back.";
      this.movedPart.replaceChildren();
      await this.page.refresh();
    });
  }

  showResult(losses, after, promised) {
    const [before] = losses;
    const change = after - before;
    const signed = (value) => (value > 0 ? "+" : "") + format(value, 3);
    const text =
      losses.length === 1
        ? `Loss ${format(before)} → ${format(after)}: a change of ${signed(change)}. The slope promised −rate ` +
          `· Σg² = ${signed(promised)}` +
          (Math.abs(change - promised) > 0.25 * Math.abs(promised) && Math.abs(promised) > 1e-6
            ? "; a straight line is only right for small steps."
            : ".")
        : `Loss ${format(before)} → ${format(after)} in ${losses.length} steps. The first slope promised ` +
          `${signed(promised)} a step.`;
    this.resultPart.textContent = text;
  }

  // The weight that the reader has chosen, and those that moved most: old + change = new.
  showMoved(before, after) {
    const moved = [];
    for (const [name, array] of Object.entries(after)) {
      for (let index = 0; index < array.length; index++) {
        const change = array[index] - before[name][index];
        if (change === 0) continue;
        if (moved.length < 6 || Math.abs(change) > Math.abs(moved.at(-1).change)) {
          moved.push({ name, index, change, old: before[name][index], now: array[index] });
          moved.sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
          moved.length = Math.min(moved.length, 6);
        }
      }
    }
    const chosen = this.chosenWeight(before, after);
    const isChosen = ({ name, index }) => name === chosen?.name && index === chosen.index;
    const shown = [...(chosen ? [chosen] : []), ...moved.filter((one) => !isChosen(one))];
    const rows = shown.map((weight) => {
      const { name, index, change, old, now } = weight;
      const cut = name.lastIndexOf(".");
      const place = { of: name.slice(cut + 1), layer: name.slice(0, Math.max(cut, 0)), index };
      const button = makeElement("button", { type: "button", className: "number" }, this.page.label(place));
      button.onclick = () => this.page.pick(place);
      const cells = [
        button,
        format(old),
        `${change < 0 ? "−" : "+"} ${format(Math.abs(change), 3)}`,
        `= ${format(now)}`,
      ];
      const row = makeElement("tr", {}, ...cells.map((cell) => makeElement("td", {}, cell)));
      if (weight === chosen) {
        row.className = "chosen-weight";
        row.firstChild.append(" (chosen)");
      }
      return row;
    });
    const what = chosen ? "The weight that you chose, and those" : "The weights";
    const caption = makeElement("caption", {}, `${what} that moved most: old + change = new`);
    this.movedPart.replaceChildren(
      ...(rows.length ? [makeElement("table", {}, caption, makeElement("tbody", {}, ...rows))] : []),
    );
  }

  // The change of the weight in the lens, or of that whose gradient is there; null if it shows no weight.
  chosenWeight(before, after) {
    const place = this.page.chosen();
    if (!place) return null;
    const key = place.of.replace("grad_", "");
    const name = place.layer ? `${place.layer}.${key}` : key;
    const [old, now] = [before, after].map((arrays) => arrays[name]?.[place.index]);
    return old === undefined ? null : { name, index: place.index, change: now - old, old, now };
  }

  async showCost() {
    const count = this.page.measured.length;
    if (count === 0) return;
    const now = await this.measure(false);
    if (now === null) return; // a later step shows its own
    this.baseline ??= this.taken === 0 ? now : await this.measure(true);
    const before = this.baseline;
    const lost = before - now;
    const verdict =
      lost > 0
        ? `It has forgotten ${lost}.`
        : lost < 0
          ? `${-lost} more than before.`
          : "Nothing was forgotten.";
    this.costPart.textContent =
      `What it cost: of ${count} test images that are not in a lesson, the trained weights get ${before} ` +
      "right, " +
      `and these weights ${now}. ${this.taken ? verdict : ""}`;
  }

  // The loss before each step, and now.
  paintCurve(now) {
    const values = now === undefined ? this.losses : [...this.losses, now];
    if (values.length < 2) return this.curvePart.replaceChildren();
    const [width, height] = [300, 90];
    const largest = Math.max(...values, 1e-9);
    const points = values.map((value, k) => {
      const x = 4 + (k / (values.length - 1)) * (width - 8);
      return `${x.toFixed(1)},${(height - 4 - (value / largest) * (height - 8)).toFixed(1)}`;
    });
    const [first, last] = [values[0], values.at(-1)].map((value) => format(value, 3));
    const text = `The loss, step by step: from ${first} to ${last}.`;
    const picture = makeElement("div", {
      innerHTML: `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${text}"><polyline points="${points.join(" ")}"/></svg>`,
    });
    const note = makeElement(
      "p",
      { className: "note" },
      `${text} The top is ${format(largest, 3)}, the bottom 0.`,
    );
    this.curvePart.replaceChildren(picture, note);
  }

  // ---- drawings that are kept ---------------------------------------------------------------------------

  keep() {
    const lesson = this.page.lesson();
    if (!lesson || this.kept.length >= MOST_KEPT) return;
    this.add(lesson);
  }

  add({ bytes, label }) {
    const canvas = makeCanvas(this.page.shape[1], this.page.shape[0]);
    paintImage(
      canvas,
      Float32Array.from(bytes, (byte) => byte / 255),
    );
    this.kept.push({ bytes, label, canvas });
    this.showKept();
  }

  showKept() {
    const { classNames } = this.page;
    const items = this.kept.map((drawing) => {
      const { canvas, label } = drawing;
      const show = makeElement("button", { type: "button", className: "show" }, canvas, classNames[label]);
      show.setAttribute("aria-label", `Show the drawing kept as ${classNames[label]}`);
      const text = `Your drawing, kept as ${classNames[label]}.`;
      show.onclick = () => this.page.show({ bytes: drawing.bytes, canvas, text, label });
      const remove = makeElement("button", { type: "button", className: "remove" }, "×");
      remove.setAttribute("aria-label", `Remove the drawing kept as ${classNames[label]}`);
      remove.onclick = () => {
        this.kept = this.kept.filter((other) => other !== drawing);
        this.showKept();
        this.keepPart.focus();
      };
      return makeElement("li", {}, show, remove);
    });
    this.keptPart.replaceChildren(...items);
    this.showControls();
  }

  // The drawings as a text: {type, drawings: [{label, png}]}, where png is a data URL of the image that the
  // network receives. pipeline/apps/predict.py reads it.
  toText() {
    const drawings = this.kept.map(({ canvas, label }) => {
      return { label: this.page.classNames[label], png: canvas.toDataURL("image/png") };
    });
    return JSON.stringify({ type: FILE_TYPE, drawings }, null, 1);
  }

  save() {
    const link = makeElement("a", { download: "drawings.json" });
    link.href = URL.createObjectURL(new Blob([this.toText()], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async load(file) {
    const { shape, classNames } = this.page;
    this.problemPart.textContent = "";
    try {
      const content = JSON.parse(await file.text());
      if (content.type !== FILE_TYPE) throw new Error();
      for (const { label, png } of content.drawings) {
        if (this.kept.length >= MOST_KEPT) break;
        if (!classNames.includes(label)) continue;
        const raster = toRaster(
          await readPicture(new Blob([decode(png.split(",")[1])], { type: "image/png" })),
          shape[2],
        );
        if (raster.width === shape[1] && raster.height === shape[0]) {
          this.add({ bytes: raster.data, label: classNames.indexOf(label) });
        }
      }
    } catch {
      this.problemPart.textContent = `${file.name} is not a file of drawings that this page has saved.`;
    }
  }
}
