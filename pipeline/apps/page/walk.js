"use strict";
// A walk for newcomers: from a pixel to the loss and back, with the image that is shown as the example.

class Walk {
  constructor(element, lens, ladder) {
    Object.assign(this, { element, lens, ladder, steps: [], at: 0 });
    this.text = element.querySelector(".walk-text");
    this.count = element.querySelector(".walk-count");
    this.previous = element.querySelector(".previous");
    this.next = element.querySelector(".next");
    this.previous.onclick = () => this.go(this.at - 1);
    this.next.onclick = () => (this.at + 1 < this.steps.length ? this.go(this.at + 1) : this.end());
    element.querySelector(".end").onclick = () => this.end();
  }

  // The terms of a place, those with the largest products first.
  async termsOf(place) {
    const { explanations } = await this.lens.ask("explain", { places: [place] });
    return [...explanations[0].terms].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  }

  // The steps of this image: a chain of places from the weight of the first kernel that has the largest
  // gradient, with a sentence for each.
  async plan() {
    const { ladder } = this;
    const { pass, classNames } = ladder;
    const output = ladder.lastLayer;
    const first = ladder.entries
      .map(({ layer }) => layer)
      .find((layer) => layer.arrays?.kernel ?? layer.arrays?.weight);
    if (!first || !pass?.grad_y) return [];
    const key = first.arrays.kernel ? "kernel" : "weight";
    const gradient = ladder.numbers({ of: `grad_${key}`, layer: first.name });
    const index = gradient.reduce((best, g, k) => (Math.abs(g) > Math.abs(gradient[best]) ? k : best), 0);
    const gradKernel = { of: `grad_${key}`, layer: first.name, index };
    const [largest] = await this.termsOf(gradKernel); // ȳ · x at one place
    const places = largest.factors.flatMap((factor) => factor.places);
    const gradOutput = places.find(({ of }) => of === "grad_y");
    const input = places.find((place) => place !== gradOutput) ?? { of: "x", layer: "", index: 0 };
    const own = { of: "y", layer: first.name, index: gradOutput.index };
    const last = { of: "grad_y", layer: output.name, index: pass.label };
    const name = classNames[pass.label];
    const steps = [
      [
        input,
        "A pixel. The network sees only numbers: this one is a cell of the image, brighter or darker than " +
          "the average.",
      ],
      [
        own,
        key === "kernel"
          ? "A kernel slides over the image. Here it lies on the framed pixels: each is multiplied by the " +
            "weight above it, and " +
            "the products are added up. That sum is one number of the layer's output."
          : "Each input is multiplied by a weight, and the products are added up. That sum is one number of the " +
            "output.",
      ],
    ];
    const pool = ladder.entries.map(({ layer }) => layer).find(({ type }) => type === "max_pool2d");
    const won = pool && (await this.wonBy(pool, own));
    if (won) {
      steps.push([
        won,
        "Max pooling keeps the largest number of each window and drops the others, so that the map shrinks " +
          "and small shifts " +
          "of the drawing matter less.",
      ]);
    }
    steps.push(
      [
        { of: "y", layer: output.name, index: pass.label },
        `All that is left flows into one number for each class. This is that of “${name}”: a weighted sum ` +
          "of what the layers " +
          "before have found. The larger it is, the more the network believes in this class.",
      ],
      [
        { of: "loss", layer: "", index: 0 },
        "The numbers of the classes become probabilities, and the loss says how surprised the network is " +
          "that it should be " +
          `“${name}”. Learning means: make this one number smaller. From here the way goes back.`,
      ],
      [
        last,
        "A gradient says how the loss changes if a number grows. For the outputs it is simply ŷ − t: what " +
          "the network said, minus " +
          `what is right. It is negative for “${name}”: a larger number here would make the loss smaller.`,
      ],
      [
        gradOutput,
        "The same question, asked of every number before: each gets the sum of the paths from it to the " +
          "loss, value times value. " +
          "Only the winner of a pooling window has such a path, so most gradients here are 0. Follow the " +
          "framed numbers.",
      ],
      [
        gradKernel,
        key === "kernel"
          ? "And at last a weight of the first layer. It was used at every place of the image, so its gradient " +
            "is a sum over all " +
            "places: the gradient there times the pixel that it was multiplied by."
          : "And at last a weight: its gradient is its input times the gradient of its output.",
      ],
      [
        { of: key, layer: first.name, index },
        "That is all that learning needs: each weight moves a little against its gradient, new = old − rate " +
          "· gradient. Press " +
          "“One step” under “Teach it”, and see how this weight and the loss change.",
      ],
    );
    return steps;
  }

  // The number of a pooling layer's output that `place` is the maximum of; or one whose window it lies in; or
  // null.
  async wonBy(pool, { layer, index }) {
    const input = this.ladder.shapeOf({ of: "y", layer });
    const [height, width, channels] = pool.shape;
    if (channels !== input[2]) return null;
    const [row, column, channel] = positionOf(index, input);
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    const p = clamp(Math.floor((row + pool.pads[0][0]) / pool.stride[0]), height);
    const q = clamp(Math.floor((column + pool.pads[1][0]) / pool.stride[1]), width);
    return { of: "y", layer: pool.name, index: (p * width + q) * channels + channel };
  }

  async start() {
    this.steps = await this.plan();
    if (!this.steps.length) return;
    this.element.hidden = false;
    this.lens.element.classList.add("walking");
    await this.go(0);
    this.next.focus({ preventScroll: true });
  }

  get isOn() {
    return !this.element.hidden;
  }

  // The same step for another picture, or other weights. A number that the reader has chosen meanwhile stays.
  async renew() {
    if (!this.isOn) return;
    const wasChosen = this.lens.place === this.steps[this.at][0];
    this.steps = await this.plan();
    this.at = Math.min(this.at, this.steps.length - 1);
    if (wasChosen) this.lens.place = this.steps[this.at][0];
    this.tell();
  }

  async go(at) {
    this.at = Math.min(Math.max(at, 0), this.steps.length - 1);
    this.tell();
    await this.lens.pick(this.steps[this.at][0], { scroll: true });
  }

  tell() {
    const [, text] = this.steps[this.at];
    this.count.textContent = `Step ${this.at + 1} of ${this.steps.length}`;
    this.text.textContent = text;
    this.previous.disabled = this.at === 0;
    this.next.textContent = this.at + 1 === this.steps.length ? "Finish" : "Next";
  }

  end() {
    if (!this.isOn) return;
    this.element.hidden = true;
    this.lens.element.classList.remove("walking");
    this.onEnd?.();
  }
}
