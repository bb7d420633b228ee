"use strict";
// The worker's messages. First {network, weights, shape}; then {id, task, …}, each answered by {id,
// milliseconds, …} with what the task gives, or by {id, problem} if it fails.

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

  // A pass of backward.js, without the network.
  differentiate({ pixels, label, loss }) {
    pass = differentiate(model.network, pixels, model.shape, label, loss);
    const { network, ...numbers } = pass;
    return { pass: numbers };
  },

  // Where the numbers at `places` of the last pass come from: see `explain`.
  explain({ places }) {
    if (!pass) throw new Error("the weights have changed since the last pass: differentiate again");
    return { explanations: places.map((place) => explain(pass, place)) };
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
