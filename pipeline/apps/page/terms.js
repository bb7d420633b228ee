"use strict";
// Where a number comes from: the sum that made it, term by term, for any number of a pass of backward.js.
//
// A place is {of, layer, index}: number `index` of the array `of` of a layer, in row-major order. `of` is
//     "y", "grad_y", "grad_x"          the layer's output, dL/d(output), dL/d(input)
//     "kernel", "grad_kernel", …       a parameter or a buffer of the layer, the gradient of a parameter
//     "x"                              the image; its layer is ""
//     "loss"                           L; layer "" and index 0
// A factor is {name, value, places}: a number that the page shows, at one place, or one that is computed from
// those at `places`, such as f′(x) or 1/d. A constant has no places. A term is {factors, product}. The
// products of all terms sum to the number, except for its rounding to float32.

const factor = (name, value, ...places) => ({ name, value, places });
const term = (...factors) => ({ factors, product: factors.reduce((p, { value }) => p * value, 1) });
const MINUS = factor("−1", -1);

// How the layers of a network are connected. For each by name:
//     layer, shape     its description, and the shape of its input
//     source           {of, layer} of its input: the output of another layer, or the image
//     output           {of, layer} of its output: for a sequential that of its last layer
//     reader           {of, layer} of the gradient that dL/d(output) is, at the layer that reads the output
function connections(network, shape) {
  if (network.connections) return network.connections;
  const all = (network.connections = {});
  function visit(layer, shape, source, reader) {
    const children = Object.values(layer.children);
    const output = { of: "y", layer: layer.name };
    const entry = (all[layer.name] = { layer, shape, source, reader, output });
    if (layer.type === "sequential") {
      entry.output = source;
      children.forEach((child, k) => {
        const next = children[k + 1];
        const childReader = next ? { of: "grad_x", layer: next.name } : reader;
        entry.output = visit(child, shape, entry.output, childReader);
        shape = child.shape;
      });
    } else {
      for (const child of children) visit(child, shape, source, { of: "grad_y", layer: layer.name });
    }
    return entry.output;
  }
  visit(network, shape, { of: "x", layer: "" }, { of: "loss", layer: "" });
  return all;
}

// The number at a place.
function numberAt(pass, { of, layer, index }) {
  if (of === "loss") return pass.loss;
  if (of === "x") return pass.x[index];
  if (of === "y" || of === "grad_y" || of === "grad_x") return pass[of][layer][index];
  const { layer: description } = connections(pass.network, pass.shape)[layer];
  if (of.startsWith("grad_")) return pass.gradients[parameterName(description, of.slice(5))][index];
  return description.arrays[of][index];
}

// What the functions of TERMS read of a layer in a pass: x, grad and factor give a number by its index.
class Lens {
  constructor(pass, name) {
    Object.assign(this, connections(pass.network, pass.shape)[name]);
    this.pass = pass;
    this.name = name;
    this.channels = this.shape.at(-1);
    this.out = this.layer.shape.at(-1);
    this.input = this.source.of === "x" ? pass.x : pass.y[this.source.layer]; // all of x
    this.gradY = pass.grad_y[name]; // all of dL/dy
  }

  x(index) {
    return factor("x", this.input[index], { ...this.source, index });
  }

  grad(index) {
    return this.factor("grad_y", index);
  }

  factor(of, index) {
    const place = { of, layer: this.name, index };
    return factor(of, numberAt(this.pass, place), place);
  }

  // A factor computed from several numbers of x, and of dL/dy.
  part(name, value, indices = [], gradIndices = []) {
    const places = indices.map((index) => ({ ...this.source, index }));
    return factor(name, value, ...places, ...gradIndices.map((index) => this.grad(index).places[0]));
  }

  has(parameter) {
    return parameter in this.layer.arrays;
  }

  // The indices of the row along the last axis that `index` lies in.
  row(index) {
    const first = index - (index % this.out);
    return range(this.out).map((c) => first + c);
  }

  // [[place, tap, pixel], …] of all windows; of one window, or of those that a pixel lies in
  windows({ place, pixel }) {
    const pixels = windows(this.layer, this.shape);
    const taps = this.layer.kernel_size[0] * this.layer.kernel_size[1];
    const [first, last] = place === undefined ? [0, pixels.length] : [place * taps, (place + 1) * taps];
    const found = [];
    for (let k = first; k < last; k++) {
      if (pixel === undefined || pixels[k] === pixel) found.push([Math.floor(k / taps), k % taps, pixels[k]]);
    }
    return found;
  }
}

const range = (length) => Array.from({ length }, (_, k) => k);
const PADDED = factor("padding", 0);

// The sum of dL/dy over all places of a channel: the gradient of what is added everywhere.
const sumOverPlaces = (lens, channel) =>
  range(lens.gradY.length / lens.out).map((place) => term(lens.grad(place * lens.out + channel)));

// ---- sliding windows ------------------------------------------------------------------------------------

const convolution = {
  y(lens, index) {
    const [place, o] = [Math.floor(index / lens.out), index % lens.out];
    const [inGroup, from] = groupOf(lens, o);
    const products = lens.windows({ place }).flatMap(([, tap, pixel]) =>
      range(inGroup).map((c) => {
        const x = pixel < 0 ? PADDED : lens.x(pixel * lens.channels + from + c);
        return term(x, lens.factor("kernel", (tap * inGroup + c) * lens.out + o));
      }),
    );
    return lens.has("bias") ? [...products, term(lens.factor("bias", o))] : products;
  },

  grad_x(lens, index) {
    const [pixel, channel] = [Math.floor(index / lens.channels), index % lens.channels];
    const [inGroup, outGroup] = [lens.channels / lens.layer.groups, lens.out / lens.layer.groups];
    const [first, c] = [Math.floor(channel / inGroup) * outGroup, channel % inGroup];
    return lens.windows({ pixel }).flatMap(([place, tap]) =>
      range(outGroup).map((k) => {
        const o = first + k;
        const weight = lens.factor("kernel", (tap * inGroup + c) * lens.out + o);
        return term(lens.grad(place * lens.out + o), weight);
      }),
    );
  },

  grad_kernel(lens, index) {
    const o = index % lens.out;
    const [inGroup, from] = groupOf(lens, o);
    const [tap, c] = [Math.floor(index / lens.out / inGroup), Math.floor(index / lens.out) % inGroup];
    return lens
      .windows({})
      .filter((window) => window[1] === tap)
      .map(([place, , pixel]) => {
        const x = pixel < 0 ? PADDED : lens.x(pixel * lens.channels + from + c);
        return term(lens.grad(place * lens.out + o), x);
      });
  },

  grad_bias: sumOverPlaces,
};

// [number of input channels of a group, the first one of the group that output channel o belongs to]
function groupOf(lens, o) {
  const inGroup = lens.channels / lens.layer.groups;
  return [inGroup, Math.floor((o * lens.layer.groups) / lens.out) * inGroup];
}

const maxPooling = {
  y(lens, index) {
    return [term(lens.x(winners(lens.layer, lens.input, lens.shape)[index] * lens.out + (index % lens.out)))];
  },
  grad_x(lens, index) {
    const [pixel, c] = [Math.floor(index / lens.channels), index % lens.channels];
    const winner = winners(lens.layer, lens.input, lens.shape);
    return lens.windows({ pixel }).map(([place]) => {
      const k = place * lens.out + c;
      return wonOrLost(lens, k, winner[k] === pixel);
    });
  },
  compared(lens, index) {
    const inside = lens.windows({ place: Math.floor(index / lens.out) }).filter(([, , pixel]) => pixel >= 0);
    return inside.map(([, , pixel]) => lens.x(pixel * lens.out + (index % lens.out)));
  },
};

const wonOrLost = (lens, k, won) => term(lens.grad(k), factor("1 if it is the maximum, else 0", won ? 1 : 0));

const averagePooling = {
  y(lens, index) {
    const [place, c] = [Math.floor(index / lens.out), index % lens.out];
    const share = factor("1/count", 1 / windowCounts(lens.layer, lens.shape)[place]);
    return lens
      .windows({ place })
      .filter(([, , pixel]) => pixel >= 0 || (pixel === PADDING && lens.layer.count_include_pad))
      .map(([, , pixel]) => term(pixel < 0 ? PADDED : lens.x(pixel * lens.channels + c), share));
  },
  grad_x(lens, index) {
    const [pixel, c] = [Math.floor(index / lens.channels), index % lens.channels];
    const counts = windowCounts(lens.layer, lens.shape);
    return lens.windows({ pixel }).map(([place]) => {
      return term(lens.grad(place * lens.out + c), factor("1/count", 1 / counts[place]));
    });
  },
};

const globalAveragePooling = {
  y: (lens, c) => channelOf(lens, c).map((x) => term(x, globalShare(lens))),
  grad_x: (lens, index) => [term(lens.grad(index % lens.channels), globalShare(lens))],
};

const globalShare = ({ shape: [height, width] }) => factor("1/(h·w)", 1 / (height * width));
const channelOf = (lens, c) =>
  range(lens.input.length / lens.channels).map((pixel) => lens.x(pixel * lens.channels + c));

const globalMaxPooling = {
  y: (lens, c) => [term(lens.x(globalWinners(lens.input, lens.channels)[c] * lens.channels + c))],
  grad_x(lens, index) {
    const [pixel, c] = [Math.floor(index / lens.channels), index % lens.channels];
    return [wonOrLost(lens, c, globalWinners(lens.input, lens.channels)[c] === pixel)];
  },
  compared: channelOf,
};

// ---- vectors and normalisation --------------------------------------------------------------------------

const denseTerms = {
  y(lens, o) {
    const weight = (i) => lens.factor("weight", i * lens.out + o);
    const products = range(lens.input.length).map((i) => term(lens.x(i), weight(i)));
    return lens.has("bias") ? [...products, term(lens.factor("bias", o))] : products;
  },
  grad_x(lens, i) {
    return range(lens.out).map((o) => term(lens.grad(o), lens.factor("weight", i * lens.out + o)));
  },
  grad_weight: (lens, k) => [term(lens.x(Math.floor(k / lens.out)), lens.grad(k % lens.out))],
  grad_bias: (lens, o) => [term(lens.grad(o))],
};

const batchNormTerms = {
  y(lens, index) {
    const c = index % lens.out;
    const scaled = term(...gammaOf(lens, c), runningDeviation(lens, index), runningInverse(lens, c));
    return [scaled, betaOf(lens, c)];
  },
  grad_x(lens, index) {
    const c = index % lens.out;
    return [term(lens.grad(index), ...gammaOf(lens, c), runningInverse(lens, c))];
  },
  grad_gamma: (lens, c) =>
    range(lens.gradY.length / lens.out).map((place) => {
      const index = place * lens.out + c;
      return term(lens.grad(index), runningDeviation(lens, index), runningInverse(lens, c));
    }),
  grad_beta: sumOverPlaces,
};

const gammaOf = (lens, c) => (lens.has("gamma") ? [lens.factor("gamma", c)] : []);
const betaOf = (lens, c) => term(lens.factor("beta", c));

function runningDeviation(lens, index) {
  const [x, mean] = [lens.x(index), lens.factor("running_mean", index % lens.out)];
  return factor("x − running_mean", x.value - mean.value, ...x.places, ...mean.places);
}

function runningInverse(lens, c) {
  const { value, places } = lens.factor("running_var", c);
  return factor("1 / √(running_var + epsilon)", 1 / Math.sqrt(value + lens.layer.epsilon), ...places);
}

const layerNormTerms = {
  y(lens, index) {
    const { c, row, mean, inverse } = pixelOf(lens, index);
    const deviation = lens.part("x − μ", lens.input[index] - mean, row);
    return [term(...gammaOf(lens, c), deviation, lens.part("1/d", inverse, row)), betaOf(lens, c)];
  },

  // Three paths: directly, through μ and through σ².
  grad_x(lens, index) {
    const { c, row, inverse, normalized, meanG, meanGX } = pixelOf(lens, index);
    const share = lens.part("1/d", inverse, row);
    return [
      term(lens.grad(index), ...gammaOf(lens, c), share),
      term(MINUS, lens.part("mean of γȳ", meanG, [], row), share),
      term(MINUS, lens.part("x̂", normalized[c], row), lens.part("mean of γȳ·x̂", meanGX, row, row), share),
    ];
  },
  grad_gamma: (lens, channel) =>
    range(lens.gradY.length / lens.out).map((place) => {
      const index = place * lens.out + channel;
      const { row, normalized } = pixelOf(lens, index);
      return term(lens.grad(index), lens.part("x̂", normalized[channel], row));
    }),
  grad_beta: sumOverPlaces,
};

function pixelOf(lens, index) {
  const row = lens.row(index);
  return { c: index - row[0], row, ...layerNormParts(lens.layer, lens.input, lens.gradY, row[0]) };
}

const softmaxTerms = {
  y(lens, index) {
    const { row, vector, largest, sum } = exponentials(lens, index);
    const power = Math.exp(vector[index - row[0]] - largest);
    return [term(lens.part("e^(x − max)", power, [index]), lens.part("1 / Σ e^(x − max)", 1 / sum, row))];
  },
  grad_x(lens, index) {
    const { row, p } = exponentials(lens, index);
    const own = lens.part("p", p[index - row[0]], row);
    const sum = row.reduce((total, k, j) => total + lens.gradY[k] * p[j], 0);
    return [term(lens.grad(index), own), term(MINUS, own, lens.part("Σ ȳ·p", sum, row, row))];
  },
};

const logSoftmaxTerms = {
  y(lens, index) {
    const { row, largest, sum } = exponentials(lens, index);
    const rest = lens.part("ln Σ e^(x − max)", Math.log(sum), row);
    return [term(lens.x(index)), term(MINUS, lens.part("max x", largest, row)), term(MINUS, rest)];
  },
  grad_x(lens, index) {
    const { row, p } = exponentials(lens, index);
    const sum = row.reduce((total, k) => total + lens.gradY[k], 0);
    const own = lens.part("p", p[index - row[0]], row);
    return [term(lens.grad(index)), term(MINUS, own, lens.part("Σ ȳ", sum, [], row))];
  },
};

// Of the row that a number lies in: its numbers, their maximum, the sum of e^(x − max), and softmax.
function exponentials(lens, index) {
  const row = lens.row(index);
  return { row, ...exponentialsOf(Float64Array.from(row, (k) => lens.input[k])) };
}

function exponentialsOf(vector) {
  const largest = vector.reduce((a, b) => Math.max(a, b));
  const sum = vector.reduce((total, value) => total + Math.exp(value - largest), 0);
  return { vector, largest, sum, p: softmax(vector) };
}

// ---- activations, element by element --------------------------------------------------------------------

// y = f(x) as the product of factors(x, layer), and dL/dx = dL/dy · f'(x).
const elementwiseTerms = (factors) => ({
  y: (lens, index) => [term(...factors(lens.x(index), lens.layer))],
  grad_x(lens, index) {
    const slope = BACKWARD[lens.layer.type].derivative(lens.input[index], lens.layer);
    return [term(lens.grad(index), lens.part("f′(x)", slope, [index]))];
  },
});

const computed = (x, name, value) => factor(name, value, ...x.places);

// Of an activation that is no product, y is its only factor.
const activation = {
  ...elementwiseTerms(),
  y: (lens, index) => [term(lens.part("f(x)", lens.pass.y[lens.name][index], [index]))],
};

const copied = {
  y: (lens, index) => [term(lens.x(index))],
  grad_x: (lens, index) => [term(lens.grad(index))],
};

// ---- the layers by their names in architectures.yaml ----------------------------------------------------

// For each array by its name in a place a function of (lens, index), which gives the terms of a number.
// `compared` gives the numbers that the maximum was chosen from. An activation may be left out: see
// `activation`.
const TERMS = {
  avg_pool2d: averagePooling,
  batch_norm: batchNormTerms,
  conv2d: convolution,
  dense: denseTerms,
  dropout: copied,
  elu: elementwiseTerms((x, { alpha }) =>
    x.value > 0 ? [x] : [factor("alpha", alpha), computed(x, "e^x − 1", Math.expm1(x.value))],
  ),
  flatten: copied,
  gelu: elementwiseTerms((x, { approximate }) => [
    x,
    computed(x, "Φ(x)", normalDistribution(x.value, approximate)[0]),
  ]),
  global_avg_pool2d: globalAveragePooling,
  global_max_pool2d: globalMaxPooling,
  layer_norm: layerNormTerms,
  leaky_relu: elementwiseTerms((x, { slope }) => [
    x,
    computed(x, "1 if x > 0, else slope", x.value > 0 ? 1 : slope),
  ]),
  log_softmax: logSoftmaxTerms,
  max_pool2d: maxPooling,
  relu: elementwiseTerms((x) => [x, computed(x, "1 if x > 0, else 0", x.value > 0 ? 1 : 0)]),
  scale: elementwiseTerms((x, layer) => [factor("factor", layer.factor), x]),
  silu: elementwiseTerms((x) => [x, computed(x, "σ(x)", sigmoid(x.value))]),
  softmax: softmaxTerms,
  spatial_dropout: copied,

  sequential: copied, // an empty one; others are what the layers inside them are

  residual: {
    y: (lens, index) => branches(lens).map(({ output }) => term(read(lens, { ...output, index }))),
    grad_x: (lens, index) => branches(lens).map(({ gradient }) => term(read(lens, { ...gradient, index }))),
  },
};

// Both branches of a residual: {of, layer} of their outputs, and of dL/dx that they return.
function branches(lens) {
  const { layers, shortcut } = lens.layer.children;
  const identity = { output: lens.source, gradient: { of: "grad_y", layer: lens.name } };
  return [layers, shortcut].map((branch) => {
    if (!branch) return identity;
    let first = branch;
    while (first.type === "sequential" && Object.keys(first.children).length) {
      first = Object.values(first.children)[0];
    }
    const { output } = connections(lens.pass.network, lens.pass.shape)[branch.name];
    return { output, gradient: { of: "grad_x", layer: first.name } };
  });
}

function read(lens, place) {
  return factor(place.of, numberAt(lens.pass, place), place);
}

// ---- losses ---------------------------------------------------------------------------------------------

// For each loss of LOSSES the terms of L, and of dL/d(outputs): functions of (y, label, at, index), where
// at(name, value, …indices) is a factor computed from these outputs.
const LOSS_TERMS = {
  softmax_cross_entropy: {
    loss(z, label, at) {
      const { largest, sum } = exponentialsOf(Float64Array.from(z));
      const all = range(z.length);
      const rest = at("ln Σ e^(z − max)", Math.log(sum), ...all);
      return [term(MINUS, at("z", z[label], label)), term(at("max z", largest, ...all)), term(rest)];
    },
    grad_y(z, label, at, k) {
      const { p } = exponentialsOf(Float64Array.from(z));
      return [term(at("ŷ", p[k], ...range(z.length))), term(MINUS, factor("t", k === label ? 1 : 0))];
    },
  },
  cross_entropy: {
    loss: (p, label, at) => [term(MINUS, at("ln ŷ", Math.log(Math.max(p[label], SMALLEST)), label))],
    grad_y: (p, label, at, k) => [
      term(MINUS, factor("t", k === label ? 1 : 0), at("1/ŷ", 1 / Math.max(p[k], SMALLEST), k)),
    ],
  },
  mean_squared_error: {
    loss: (y, label, at) =>
      range(y.length).map((k) => {
        const difference = at("y − t", y[k] - (k === label), k);
        return term(difference, difference, factor("1/K", 1 / y.length));
      }),
    grad_y: (y, label, at, k) => [
      term(factor("2", 2), at("y − t", y[k] - (k === label), k), factor("1/K", 1 / y.length)),
    ],
  },
};

function lossTerms(pass, of, index) {
  const { output } = connections(pass.network, pass.shape)[""];
  const at = (name, value, ...indices) =>
    factor(name, value, ...indices.map((k) => ({ ...output, index: k })));
  return LOSS_TERMS[pass.lossName][of](pass.y[""], pass.label, at, index);
}

// ---- any number -----------------------------------------------------------------------------------------

// Where the number at a place comes from: {place, rule, value, terms, compared}.
//     rule       {of, layer, type}: whose equation it is, with layer "" and type "loss" for those of the loss
//     value      the number
//     terms      those that sum to it, all of them; none for what was given: the image, weights
//     compared   the factors that a maximum was chosen from, else []
// dL/dy of a layer is dL/dx of the layer that reads it, so its terms are those.
function explain(pass, place) {
  const { of, layer: name, index } = place;
  let rule = { of, layer: "", type: "loss" };
  const found = (terms, compared = []) => ({ place, rule, value: numberAt(pass, place), terms, compared });
  if (of === "loss") return found(lossTerms(pass, "loss", 0));
  const { layer, reader } = connections(pass.network, pass.shape)[name];
  const children = Object.values(layer.children);
  if (of === "grad_y" && reader.of === "loss") return found(lossTerms(pass, "grad_y", index));
  rule = { of, layer: name, type: layer.type };
  if (of === "grad_y" && reader.of === "grad_y") {
    return found([term(factor("grad_y", numberAt(pass, { ...reader, index }), { ...reader, index }))]);
  }
  if (of === "grad_y") return { ...explain(pass, { ...reader, index }), place };
  if (layer.type === "sequential" && children.length) {
    const child = of === "y" ? children.at(-1) : children[0];
    return { ...explain(pass, { of, layer: child.name, index }), place };
  }
  const kinds = TERMS[layer.type] ?? (BACKWARD[layer.type].derivative && activation);
  if (!kinds) throw new Error(`this page has no terms of layer ${layer.type}`);
  if (!kinds[of]) return found([]);
  const lens = new Lens(pass, name);
  return found(kinds[of](lens, index), of === "y" ? kinds.compared?.(lens, index) : []);
}

// The places that a number goes to: on the way there, the numbers that are computed from it; on the way back,
// the gradients. They need no table of their own, since both ways lead through the same pairs: y goes to what
// ȳ comes from, and ȳ to what y comes from. The loss goes nowhere, nor does a weight's gradient.
function goalsOf(pass, { of, layer, index }) {
  const isBack = of.startsWith("grad_");
  const pair = opposite({ of, layer, index });
  if (of === "loss" || !isKnown(pass, pair) || (isBack && !["x", "y"].includes(pair.of))) return [];
  const { rule } = explain(pass, pair);
  if (!isBack && rule.type === "loss") return [{ of: "loss", layer: "", index: 0 }];
  const goals = sourcesOf(pass, pair)
    .filter((source) => isBack !== source.of.startsWith("grad_"))
    .map(opposite)
    .filter((goal) => isKnown(pass, goal));
  return [...new Map(goals.map((goal) => [Object.values(goal).join(), goal])).values()];
}

// The places of a number's terms; in the place of dL/d(input) of a branch, those of its terms.
function sourcesOf(pass, place) {
  const places = explain(pass, place).terms.flatMap(({ factors }) => factors.flatMap((one) => one.places));
  return places.flatMap((one) => (one.of === "grad_x" ? sourcesOf(pass, one) : [one]));
}

// The gradient of a number, or the number of a gradient.
function opposite({ of, layer, index }) {
  return { of: of.startsWith("grad_") ? of.slice(5) : `grad_${of}`, layer, index };
}

// Whether a place exists: running statistics have no gradient.
function isKnown(pass, { of, layer }) {
  if (!of.startsWith("grad_") || of === "grad_x" || of === "grad_y") return true;
  const about = connections(pass.network, pass.shape)[layer];
  return about !== undefined && parameterName(about.layer, of.slice(5)) in pass.gradients;
}
