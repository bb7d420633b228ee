"use strict";
// A walk for newcomers: from a pixel to the loss and back, with the image that is shown as the example. It
// goes there and back along one path, so that the numbers of the way there are met again on the way back.

// What a layer does with a number, and with its gradient, for the layers that the walk stops at.
const STOPS = {
  batch_norm: {
    there: () =>
      "**Batch norm** subtracts the channel's mean over the training images, divides by their deviation, " +
      "and then scales and shifts by two learnt numbers, γ and β. So all channels have numbers of about " +
      "the same size.",
    back: () =>
      "**Batch norm** multiplied the number by γ / √(σ² + ε). A change of the number grows by this " +
      "factor on its way to the loss, so the gradient is multiplied by it.",
  },
  relu: {
    there: (x, y) =>
      `**ReLU** passes on what is above 0, and makes 0 of the rest: here ${format(x)} ` +
      (y > 0 ? "stays as it is." : "becomes 0."),
    back: () =>
      "**ReLU** passed this number on as it is, so its gradient is the one behind it, times 1. Where " +
      "ReLU made 0 of a number, a small change of it changes nothing: times 0. Those cells are hatched " +
      "in its row.",
  },
  max_pool2d: {
    there: () =>
      "**Max pooling** keeps the largest number of each window and drops the others, so that the map " +
      "shrinks, and small shifts of the drawing matter less.",
    back: () =>
      "**Max pooling** passed on the winner of each window alone. So the winner gets the window's " +
      "gradient, times 1, and the others get 0.",
  },
  avg_pool2d: {
    there: () => "**Average pooling** makes one number of each window: its mean.",
    back: () =>
      "**Average pooling** divided the sum of a window by its count. So each number of the window gets " +
      "an equal share of the gradient.",
  },
  conv2d: {
    back: () =>
      "The next **convolution** reads this number in each window that it lies in, with each of its " +
      "kernels. Every one of these paths gives: gradient of what was made of it, times the weight on the " +
      "way. The sum is its gradient.",
  },
  dense: {
    back: (x, y, { classNames }) =>
      "**A sum over the classes.** This number goes into the z of " +
      (classNames.length === 2 ? "both" : `all ${classNames.length}`) +
      " classes, with a weight for each. If it grows by a little, each z changes by its weight times as " +
      "much, and the loss by z̄ times that. All these paths count: the gradient is the sum of z̄ · W " +
      "over the classes.",
  },
};

class Walk {
  // `data` describes the images, with mean and deviation; `teach` leads to the steps of learning.
  constructor(element, lens, ladder, { data, rate, teach }) {
    Object.assign(this, { element, lens, ladder, data, rate, teach, steps: [], at: 0 });
    this.text = element.querySelector(".walk-text");
    this.count = element.querySelector(".walk-count");
    this.previous = element.querySelector(".previous");
    this.next = element.querySelector(".next");
    this.previous.onclick = () => this.go(this.at - 1);
    this.next.onclick = () => (this.isLast ? this.finish() : this.go(this.at + 1));
    element.querySelector(".end").onclick = () => {
      this.end();
      lens.title.focus({ preventScroll: true });
    };
  }

  get isOn() {
    return !this.element.hidden;
  }

  get isLast() {
    return this.at + 1 >= this.steps.length;
  }

  // What the lens says of a place, its terms with the largest products first.
  async explain(place) {
    const [found] = (await this.lens.ask("explain", { places: [place] })).explanations;
    return { ...found, terms: [...found.terms].sort((a, b) => Math.abs(b.product) - Math.abs(a.product)) };
  }

  // From a gradient to that of the outputs, at each number along the path that counts most: explanations.
  async pathFrom(place) {
    const path = [];
    while (place && path.length < 200) {
      const found = await this.explain(place);
      path.push(found);
      place = found.terms
        .flatMap(({ factors }) => factors.flatMap(({ places }) => places))
        .find(({ of }) => of === "grad_y" || of === "grad_x");
    }
    return path;
  }

  // The stops of the way back, the first layer first: of each kind of layer the first one, but of dense
  // layers the last, whose sum is over the classes. Each has the explanation of a gradient, and `next`, that
  // of the gradient behind it.
  stopsOf(path) {
    const stops = path
      .slice(0, -1)
      .map((found, k) => ({ ...found, next: path[k + 1] }))
      .filter(
        ({ place, rule, next }) => STOPS[rule.type] && place.of === "grad_y" && next.place.of === "grad_y",
      );
    return stops.filter(({ rule: { type } }, k) => {
      const others = type === "dense" ? stops.slice(k + 1) : stops.slice(0, k);
      return !others.some(({ rule }) => rule.type === type);
    });
  }

  // The steps for this image, [place, text], along a path from the weight of the first kernel that has the
  // largest gradient.
  async plan() {
    const { ladder } = this;
    const { pass } = ladder;
    const first = ladder.entries
      .map(({ layer }) => layer)
      .find((layer) => layer.arrays?.kernel ?? layer.arrays?.weight);
    if (!first || !pass?.grad_y) return [];
    const key = first.arrays.kernel ? "kernel" : "weight";
    const gradient = ladder.numbers({ of: `grad_${key}`, layer: first.name });
    const index = gradient.reduce((best, g, k) => (Math.abs(g) > Math.abs(gradient[best]) ? k : best), 0);
    const weight = { of: key, layer: first.name, index };
    const gradWeight = { ...weight, of: `grad_${key}` };
    const [largest] = (await this.explain(gradWeight)).terms; // ȳ · x at one place
    const places = largest.factors.flatMap((factor) => factor.places);
    const gradOutput = places.find(({ of }) => of === "grad_y");
    const input = places.find((place) => place !== gradOutput) ?? { of: "x", layer: "", index: 0 };
    const stops = this.stopsOf(await this.pathFrom(gradOutput));
    const outputs = { layer: ladder.lastLayer.name, index: pass.label };
    const there = stops
      .filter(({ rule }) => STOPS[rule.type].there)
      .map(({ place, rule, next }) => [
        { ...next.place, of: "y" },
        STOPS[rule.type].there(
          this.numberAt({ ...place, of: "y" }),
          this.numberAt({ ...next.place, of: "y" }),
        ),
      ]);
    const back = stops.map(({ place, rule }) => [place, STOPS[rule.type].back(null, null, ladder)]).reverse();
    return [
      [input, this.pixelText(input)],
      [{ ...gradOutput, of: "y" }, this.firstText(first, key)],
      ...there,
      [{ ...outputs, of: "y" }, this.outputText()],
      [{ of: "loss", layer: "", index: 0 }, this.lossText()],
      [{ ...outputs, of: "grad_y" }, this.gradientText()],
      ...back,
      [gradWeight, this.weightText(key, largest)],
      [weight, this.stepText(weight)],
    ];
  }

  numberAt(place) {
    return this.ladder.numbers(place)?.[place.index];
  }

  get label() {
    return `“${this.ladder.classNames[this.ladder.pass.label]}”`;
  }

  pixelText(place) {
    if (place.of !== "x") return "A number. The network sees only numbers, and here it begins to weigh them.";
    const value = this.numberAt(place);
    const [mean, deviation] = [this.data.mean, this.data.deviation].map(
      (list) => list[place.index % list.length],
    );
    const brightness = format(value * deviation + mean, 3);
    const text =
      `**A pixel.** The network sees only numbers. This one's brightness is ${brightness}, where 0 is black ` +
      "and 1 is white.";
    if (mean === 0 && deviation === 1) return text;
    return (
      `${text} To have numbers around 0, the mean of the training images is subtracted, and the result ` +
      `is divided by their deviation: (${brightness} − ${format(mean, 3)}) / ${format(deviation, 3)} = ` +
      `${format(value, 3)}. Black is now ${format((0 - mean) / deviation, 3)}.`
    );
  }

  firstText(layer, key) {
    if (key === "weight") {
      return (
        "Each input is multiplied by a **weight**, and the products are added up. That sum is one number " +
        `of the output. ${layer.arrays.bias ? "The **bias**, one more weight, is added to it." : ""}`
      );
    }
    const [height, width, , out] = layer.arrays.kernel.shape;
    const bias = layer.arrays.bias ? ", together with one more number, the **bias**" : "";
    return (
      `**A convolution.** A **kernel** is a small array of weights, here ${height} x ${width}, that ` +
      "slides over the image. Here it lies on the framed pixels: each is multiplied by the weight that " +
      `lies on it, and the products are added up${bias}. That sum is one number of the output. The layer ` +
      `has ${out} kernels, and each makes a map of its own, called a **channel**: ` +
      `${this.ladder.titleText(layer)}.`
    );
  }

  outputText() {
    const { lastLayer, givesProbabilities, classNames } = this.ladder;
    const layers =
      this.ladder.entries.length > 7 ? "More such layers follow. In the end, everything" : "Everything";
    if (givesProbabilities) {
      return (
        `${layers} flows into one number for each class, its **probability** ŷ. This is that of ` +
        `${this.label}.`
      );
    }
    const how =
      lastLayer.type === "dense" ? ": each number before, times a weight of its own, summed up" : "";
    return (
      `${layers} flows into one number for each of the ${classNames.length} classes, called z. This is ` +
      `that of ${this.label}${how}. The larger it is, the more the network believes in this class.`
    );
  }

  lossText() {
    const { givesProbabilities, pass } = this.ladder;
    const softmax = givesProbabilities
      ? ""
      : "**Softmax** makes probabilities of the z: ŷ = e^z / Σ e^z. They are above 0 and sum to 1. ";
    return (
      `${softmax}The **loss** L = −ln ŷ of the class that it should be, ${this.label}, says how ` +
      "surprised the network is: 0 if ŷ is 1, and the larger the smaller ŷ is. Here L = " +
      `${format(pass.loss, 3)}. Learning means: make this one number smaller. From here the way goes ` +
      "back."
    );
  }

  gradientText() {
    const { givesProbabilities, pass } = this.ladder;
    const z = givesProbabilities ? "y" : "z";
    const meaning =
      `A **gradient** says how fast the loss changes if one number grows. That of ${z} is ` +
      `${overlined(z)}, short for dL/d${z}; a bar always means this. `;
    const value = pass.grad_y[""][pass.label];
    if (givesProbabilities) {
      return (
        `${meaning}Here y is the probability ŷ itself, and L = −ln ŷ of ${this.label}, whose derivative ` +
        `is −1/ŷ = ${format(value, 3)}. The ŷ of the other classes do not occur in L, so their gradients ` +
        "are 0."
      );
    }
    return (
      `${meaning}Why is it ŷ − t? With softmax put in, L = ln Σ e^z − z of ${this.label}. The derivative ` +
      `of the first part is e^z / Σ e^z = ŷ; that of the second is 1 for ${this.label} and 0 for all ` +
      `others, which is t. Here: ${format(value + 1, 3)} − 1 = ${format(value, 3)}. So the loss falls if ` +
      "this z grows."
    );
  }

  weightText(key, largest) {
    if (key === "weight")
      return (
        "And at last **a weight of the first layer**: its gradient is its input, times the gradient of its " +
        "output."
      );
    const [gradient, x] = largest.factors.map(({ value }) => format(value, 3));
    return (
      "And at last **a weight of the first layer**. It was used at every place of the image, and each " +
      "place is a path: the gradient there, times the pixel that the weight lay on. At the place of this " +
      `walk that is ${gradient} · ${x} = ${format(largest.product, 3)}. The sum over all places is the ` +
      "weight's gradient."
    );
  }

  stepText(weight) {
    const rate = this.rate();
    const [old, gradient] = [weight, { ...weight, of: `grad_${weight.of}` }].map((place) =>
      this.numberAt(place),
    );
    return (
      "**Learning.** Each weight takes a step against its gradient, new = old − rate · gradient. This " +
      `one: ${format(old)} − ${rate} · ${format(gradient, 3)} = ${format(old - rate * gradient)}. If all ` +
      "weights do it, each lowers the loss by about rate · gradient², so together rate · Σg². Press “One " +
      "step” and see how this weight and the loss change."
    );
  }

  async start() {
    this.steps = await this.plan();
    if (!this.steps.length) return;
    this.element.hidden = false;
    this.lens.element.classList.add("walking");
    await this.go(0);
    this.next.focus({ preventScroll: true });
  }

  // The same step for another picture, or other weights. A number that the reader has chosen meanwhile stays.
  async renew() {
    if (!this.isOn) return;
    const wasChosen = this.lens.place === this.steps[this.at][0];
    const kind = ({ of, layer }) => `${of} ${layer}`;
    const before = kind(this.steps[this.at][0]);
    this.steps = await this.plan();
    const same = this.steps.findIndex(([place]) => kind(place) === before);
    this.at = same < 0 ? Math.min(this.at, this.steps.length - 1) : same;
    if (wasChosen) this.lens.place = this.steps[this.at][0];
    this.tell();
  }

  async go(at) {
    this.at = Math.min(Math.max(at, 0), this.steps.length - 1);
    this.tell();
    this.lens.element.scrollTop = 0;
    await this.lens.pick(this.steps[this.at][0], { scroll: true });
  }

  tell() {
    const [, text] = this.steps[this.at];
    this.count.textContent = `Step ${this.at + 1} of ${this.steps.length}`;
    this.text.replaceChildren(
      ...text.split("**").map((part, k) => (k % 2 ? makeElement("strong", {}, part) : part)),
    );
    this.previous.disabled = this.at === 0;
    this.next.textContent = this.isLast ? "Teach it" : "Next";
  }

  // The number of the last step stays chosen; a sheet that shows it would hide what a step does.
  finish() {
    this.end();
    if (this.lens.isDocked) this.lens.element.classList.remove("open");
    this.teach();
  }

  end() {
    this.element.hidden = true;
    this.lens.element.classList.remove("walking");
  }
}
