"use strict";
// The worker's messages. First {network, weights, shape}; then {id, task, …}, each answered by {id,
// milliseconds, …} with what the task gives, or by {id, problem} if it fails. page.js puts this together with
// network.js, backward.js, terms.js and EXACT, which is network.js once more, in double precision.

let model; // with the trained weights in `trained`
let pass = null; // the last one of `differentiate` since the weights changed
let steps = []; // what `undo` needs of each step, the last one at the end
const KEPT = 2 ** 24; // numbers that they may hold: 64 MB

const TASKS = {
  // The outputs of all layers by name, or, without `all`, only the last one's, whose name is "".
  run({ pixels, all }) {
    const outputs = {};
    const y = forward(model.network, pixels, model.shape, outputs);
    return { outputs: all ? outputs : { "": y } };
  },

  // A pass of backward.js, without the network; with `layers`, a list of names, only what belongs to these
  // and to the whole, since it takes longer to send millions of numbers than to compute them.
  differentiate({ pixels, label, loss, layers }) {
    pass = differentiate(model.network, pixels, model.shape, label, loss);
    const { network, ...numbers } = pass;
    if (layers) {
      const asked = new Set([...layers, ""]);
      const ofLayers = (arrays, layerOf) => {
        return Object.fromEntries(Object.entries(arrays).filter(([name]) => asked.has(layerOf(name))));
      };
      for (const kind of ["y", "grad_y", "grad_x", "won"])
        numbers[kind] = ofLayers(numbers[kind], (name) => name);
      numbers.gradients = ofLayers(numbers.gradients, (name) =>
        name.slice(0, Math.max(0, name.lastIndexOf("."))),
      );
    }
    return { pass: numbers };
  },

  // Where the numbers at `places` of the last pass come from: see `explain`.
  explain({ places }) {
    if (!pass) throw new Error("the weights have changed since the last pass: differentiate again");
    return { explanations: places.map((place) => explain(pass, place)) };
  },

  // The places that the number at a place goes to: see `goalsOf`.
  goals({ place }) {
    if (!pass) throw new Error("the weights have changed since the last pass: differentiate again");
    return { goals: goalsOf(pass, place) };
  },

  // The slope of the loss at a number of the last pass, not by backward passes but by two forward ones:
  //     (L(v + epsilon) − L(v − epsilon)) / (2·epsilon)
  // In float32 the difference would be lost in rounding, so EXACT computes them in float64. `place` is that
  // of a gradient, "grad_kernel" for example, and v the number that it belongs to.
  nudge({ place: { of, layer: name, index }, epsilon }) {
    if (!pass) throw new Error("the weights have changed since the last pass: differentiate again");
    const what = of.slice("grad_".length);
    const lossAt = (change) => {
      const nudged = (numbers) => {
        const copy = Float64Array.from(numbers);
        copy[index] += change;
        return copy;
      };
      const isActivation = what === "x" || what === "y";
      const replace = (at, layer, numbers) => (at === what && layer === name ? nudged(numbers) : numbers);
      const outputs = isActivation ? { [EXACT.REPLACE]: replace } : {};
      const network = withArrays(model.network, (layer, key, array) => {
        return layer.name === name && key === what ? nudged(array) : array;
      });
      return LOSSES[pass.lossName](
        EXACT.forward(network, Float64Array.from(pass.x), pass.shape, outputs),
        pass.label,
      )[0];
    };
    return { slope: (lossAt(epsilon) - lossAt(-epsilon)) / (2 * epsilon) };
  },

  // Of `examples`, a list of {pixels, label}: how many the network gets right, and their mean loss; now, or
  // with the trained weights.
  measure({ examples, loss: lossName, byTrained }) {
    const now = byTrained && model.weights.slice();
    if (byTrained) model.weights.set(model.trained);
    let [right, loss] = [0, 0];
    for (const { pixels, label } of examples) {
      const outputs = forward(model.network, pixels, model.shape, {});
      if (answerOf(outputs) === label) right++;
      loss += LOSSES[lossName](outputs, label)[0] / examples.length;
    }
    if (byTrained) model.weights.set(now);
    return { right, loss };
  },

  // One step of SGD on the mean loss of `examples`, a list of {pixels, label}; the loss is that before the
  // step, and `steps` how many can be undone.
  step({ examples, loss: lossName, learningRate }) {
    const { loss, gradients } = differentiateMean(model.network, examples, model.shape, lossName);
    steps.push(step(model.network, gradients, learningRate));
    steps = steps.slice(-Math.max(1, Math.floor(KEPT / model.weights.length)));
    pass = null;
    return { loss, gradients, steps: steps.length };
  },

  // Takes the last step back, if there is one.
  undo() {
    if (steps.length) undo(model.network, steps.pop());
    pass = null;
    return { steps: steps.length };
  },

  // Back to the trained weights.
  reset() {
    model.weights.set(model.trained);
    steps = [];
    pass = null;
    return { steps: 0 };
  },

  // All arrays of the network by their names in the checkpoint, as they are now.
  weights: () => ({ weights: arraysOf(model.network) }),
};

// A copy of the network in which each array is f(layer, its name, array).
function withArrays(layer, f) {
  const copied = (entries, g) =>
    Object.fromEntries(Object.entries(entries).map(([key, value]) => [key, g(key, value)]));
  return {
    ...layer,
    arrays: copied(layer.arrays ?? {}, (key, array) => f(layer, key, array)),
    children: copied(layer.children, (_, child) => withArrays(child, f)),
  };
}

self.onmessage = ({ data }) => {
  if (data.network) {
    model = { ...data, trained: data.weights.slice() };
    attachArrays(model.network, model.weights);
    return;
  }
  const start = performance.now();
  try {
    const answer = TASKS[data.task](data);
    self.postMessage({ id: data.id, ...answer, milliseconds: performance.now() - start });
  } catch (error) {
    self.postMessage({ id: data.id, problem: error.message });
  }
};
