"use strict";
// The way back: from the loss to the gradient of every number, as the backward passes of cnn/layers compute
// it, for one image; and the step of SGD that follows. docs/mathematics.md derives the equations.
//
// grad_v is dL/dv, the derivative of the loss by v. As in network.js, gradients are Float32Arrays, sums are
// computed in double precision, and each array is rounded to float32 once.
//
// The network is differentiated as the page evaluates it: dropout passes everything on, and batch norm uses
// its running statistics, which are constants. There are three reasons. One vector alone has no variance, so
// that batch norm would leave nothing of it. Statistics of a few drawings are far from those that the weights
// were trained with. And so a step goes down the very loss that the page shows: at a small learning rate the
// loss falls by learning rate · Σ grad². A step leaves the running statistics as they are.

// ---- losses, for one image ------------------------------------------------------------------------------

// Each gives [L, dL/d(outputs)] from the network's outputs and the number of the right class; t is 1 there
// and 0 elsewhere. With one image, 1/N is 1.
const LOSSES = {
  // L = −log p[label], with p = softmax(z);    dL/dz = p − t
  softmax_cross_entropy(z, label) {
    const logP = logSoftmax(Float64Array.from(z));
    return [-logP[label], Float32Array.from(logP, (value, k) => Math.exp(value) - (k === label))];
  },

  // L = −log p[label];    dL/dp = −t / p
  cross_entropy(p, label) {
    const likely = Math.max(p[label], SMALLEST);
    return [-Math.log(likely), Float32Array.from(p, (_, k) => (k === label ? -1 / likely : 0))];
  },

  // L = 1/K · Σ_k (y[k] − t[k])²;    dL/dy = 2/K · (y − t)
  mean_squared_error(y, label) {
    const difference = Float64Array.from(y, (value, k) => value - (k === label));
    const loss = difference.reduce((sum, d) => sum + d * d, 0) / y.length;
    return [loss, Float32Array.from(difference, (d) => (2 * d) / y.length)];
  },
};

const SMALLEST = 2 ** -126; // of float32's normal numbers: what a probability of 0 counts as

// ---- sliding windows ------------------------------------------------------------------------------------

// With y = Σ x · kernel + bias as in conv2d, each product sends the gradient to both of its factors:
//     dL/dx[row, column, c] = Σ dL/dy[p, q, o] · kernel[i, j, c, o]   over all windows that the pixel lies in
//     dL/dkernel[i, j, c, o] = Σ_{p, q} dL/dy[p, q, o] · x[row, column, c]
//     dL/dbias[o] = Σ_{p, q} dL/dy[p, q, o]
function conv2dBackward(layer, x, shape, gradY) {
  const { kernel, bias } = layer.arrays;
  const pixels = windows(layer, shape);
  const taps = layer.kernel_size[0] * layer.kernel_size[1];
  const [out, channels] = [layer.shape[2], shape[2]];
  const [inGroup, outGroup] = [channels / layer.groups, out / layer.groups];
  const [gradX, gradKernel] = [new Float64Array(x.length), new Float64Array(kernel.length)];
  const gradBias = new Float64Array(out);
  const grads = new Float64Array(outGroup); // those of a window that are not 0, …
  const channelsOf = new Int32Array(outGroup); // … and their channels
  const places = gradY.length / out;
  for (let place = 0; place < places; place++) {
    for (let group = 0; group < layer.groups; group++) {
      let count = 0;
      for (let o = group * outGroup; o < (group + 1) * outGroup; o++) {
        const grad = gradY[place * out + o];
        if (grad === 0) continue; // behind ReLU and max pooling most gradients are 0
        gradBias[o] += grad;
        channelsOf[count] = o;
        grads[count++] = grad;
      }
      if (count === 0) continue;
      for (let tap = 0; tap < taps; tap++) {
        const pixel = pixels[place * taps + tap];
        if (pixel < 0) continue;
        for (let c = 0; c < inGroup; c++) {
          const from = pixel * channels + group * inGroup + c;
          const first = (tap * inGroup + c) * out;
          const value = x[from];
          let sum = 0;
          for (let k = 0; k < count; k++) {
            const weight = first + channelsOf[k];
            sum += grads[k] * kernel[weight];
            gradKernel[weight] += grads[k] * value;
          }
          gradX[from] += sum;
        }
      }
    }
  }
  return withoutMissing({ x: gradX, kernel: gradKernel, bias: bias && gradBias });
}

// For each window and channel, the number of the pixel that is the maximum; in a tie, of the first.
function winners(layer, x, shape) {
  const pixels = windows(layer, shape);
  const [places, channels] = [layer.shape[0] * layer.shape[1], shape[2]];
  const taps = pixels.length / places;
  const winner = new Int32Array(places * channels).fill(-1);
  for (let k = 0; k < pixels.length; k++) {
    if (pixels[k] < 0) continue;
    const to = Math.floor(k / taps) * channels;
    for (let c = 0; c < channels; c++) {
      const best = winner[to + c];
      if (best < 0 || !(x[pixels[k] * channels + c] <= x[best * channels + c])) winner[to + c] = pixels[k];
    }
  }
  return winner;
}

// dL/dx[row, column, c] = Σ dL/dy[p, q, c] over the windows of which the pixel is the maximum.
function maxPool2dBackward(layer, x, shape, gradY, pass) {
  const channels = shape[2];
  const gradX = new Float64Array(x.length);
  const won = (pass.won[layer.name] = new Float32Array(x.length));
  winners(layer, x, shape).forEach((pixel, k) => {
    if (pixel < 0) return;
    gradX[pixel * channels + (k % channels)] += gradY[k];
    won[pixel * channels + (k % channels)] = 1;
  });
  return { x: gradX };
}

// For each window, how many pixels its mean is over: see avgPool2d.
function windowCounts(layer, shape) {
  const pixels = windows(layer, shape);
  const counts = new Int32Array(layer.shape[0] * layer.shape[1]);
  const taps = pixels.length / counts.length;
  pixels.forEach((pixel, k) => {
    if (pixel >= 0 || (pixel === PADDING && layer.count_include_pad)) counts[Math.floor(k / taps)]++;
  });
  return counts;
}

// dL/dx[row, column, c] = Σ dL/dy[p, q, c] / count[p, q] over the windows that the pixel lies in.
function avgPool2dBackward(layer, x, shape, gradY) {
  const pixels = windows(layer, shape);
  const counts = windowCounts(layer, shape);
  const [taps, channels] = [pixels.length / counts.length, shape[2]];
  const gradX = new Float64Array(x.length);
  for (let k = 0; k < pixels.length; k++) {
    if (pixels[k] < 0) continue;
    const place = Math.floor(k / taps);
    for (let c = 0; c < channels; c++) {
      gradX[pixels[k] * channels + c] += gradY[place * channels + c] / counts[place];
    }
  }
  return { x: gradX };
}

// dL/dx[p, q, c] = dL/dy[c] / (h·w)
function globalAvgPool2dBackward(layer, x, [height, width, channels], gradY) {
  return { x: x.map((_, k) => gradY[k % channels] / (height * width)) };
}

// For each channel, the number of the pixel that is the maximum; in a tie, of the first.
function globalWinners(x, channels) {
  const winner = new Int32Array(channels);
  x.forEach((value, k) => {
    const c = k % channels;
    if (value > x[winner[c] * channels + c]) winner[c] = (k - c) / channels;
  });
  return winner;
}

// dL/dx[p, q, c] = dL/dy[c] if (p, q) is the first maximum of channel c, else 0.
function globalMaxPool2dBackward(layer, x, [, , channels], gradY, pass) {
  const gradX = new Float32Array(x.length);
  const won = (pass.won[layer.name] = new Float32Array(x.length));
  globalWinners(x, channels).forEach((pixel, c) => {
    gradX[pixel * channels + c] = gradY[c];
    won[pixel * channels + c] = 1;
  });
  return { x: gradX };
}

// ---- vectors and normalisation --------------------------------------------------------------------------

// dL/dx[i] = Σ_o dL/dy[o] · weight[i, o],    dL/dweight[i, o] = x[i] · dL/dy[o],    dL/dbias = dL/dy
function denseBackward(layer, x, shape, gradY) {
  const { weight, bias } = layer.arrays;
  const out = gradY.length;
  const [gradX, gradWeight] = [new Float64Array(x.length), new Float32Array(weight.length)];
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    let sum = 0;
    for (let o = 0; o < out; o++) {
      sum += gradY[o] * weight[i * out + o];
      gradWeight[i * out + o] = value * gradY[o];
    }
    gradX[i] = sum;
  }
  return withoutMissing({ x: gradX, weight: gradWeight, bias: bias && gradY.slice() });
}

// Where y = gamma · x̂ + beta with x̂ = (x − mean) / d, and the running mean and d = sqrt(var + epsilon) are
// constants:
//     dL/dx = gamma / d · dL/dy,    dL/dgamma[c] = Σ_{p, q} dL/dy · x̂,    dL/dbeta[c] = Σ_{p, q} dL/dy
function batchNormBackward(layer, x, shape, gradY) {
  const { gamma, beta, running_mean: mean, running_var: variance } = layer.arrays;
  const channels = beta.length;
  const inverse = Float64Array.from(variance, (v) => 1 / Math.sqrt(v + layer.epsilon));
  const [gradX, gradGamma] = [new Float64Array(x.length), new Float64Array(channels)];
  const gradBeta = new Float64Array(channels);
  for (let k = 0; k < x.length; k++) {
    const c = k % channels;
    gradX[k] = (gamma ? gamma[c] : 1) * inverse[c] * gradY[k];
    gradGamma[c] += gradY[k] * (x[k] - mean[c]) * inverse[c];
    gradBeta[c] += gradY[k];
  }
  return withoutMissing({ x: gradX, gamma: gamma && gradGamma, beta: gradBeta });
}

// Over the m channels of each pixel, with x̂ = (x − μ) / d, d = sqrt(σ² + epsilon) and g = gamma · dL/dy:
//     dL/dx = 1/d · (g − 1/m · Σ g − x̂ · 1/m · Σ g·x̂)
//     dL/dgamma[c] = Σ dL/dy · x̂,    dL/dbeta[c] = Σ dL/dy     over the pixels
function layerNormBackward(layer, x, shape, gradY) {
  const { gamma } = layer.arrays;
  const m = gamma.length;
  const [gradX, gradGamma, gradBeta] = [new Float64Array(x.length), new Float64Array(m), new Float64Array(m)];
  for (let first = 0; first < x.length; first += m) {
    const { normalized, inverse, meanG, meanGX } = layerNormParts(layer, x, gradY, first);
    for (let c = 0; c < m; c++) {
      const grad = gradY[first + c];
      gradX[first + c] = inverse * (gamma[c] * grad - meanG - normalized[c] * meanGX);
      gradGamma[c] += grad * normalized[c];
      gradBeta[c] += grad;
    }
  }
  return { x: gradX, gamma: gradGamma, beta: gradBeta };
}

// Of the pixel whose channels begin at `first`: μ, 1/d, x̂, 1/m · Σ g and 1/m · Σ g·x̂.
function layerNormParts(layer, x, gradY, first) {
  const { gamma } = layer.arrays;
  const pixel = Float64Array.from(x.subarray(first, first + gamma.length));
  const mean = pixel.reduce((sum, value) => sum + value, 0) / pixel.length;
  const variance = pixel.reduce((sum, value) => sum + (value - mean) ** 2, 0) / pixel.length;
  const inverse = 1 / Math.sqrt(variance + layer.epsilon);
  const normalized = pixel.map((value) => (value - mean) * inverse);
  const g = Float64Array.from(gamma, (scale, c) => scale * gradY[first + c]);
  const meanG = g.reduce((sum, value) => sum + value, 0) / g.length;
  const meanGX = g.reduce((sum, value, c) => sum + value * normalized[c], 0) / g.length;
  return { mean, inverse, normalized, meanG, meanGX };
}

// dL/dx_i = p_i · (dL/dy_i − Σ_j dL/dy_j · p_j), with p = softmax(x)
function softmaxBackward(layer, x, shape, gradY) {
  return alongLastAxisBackward(layer, x, gradY, (p, grad) => {
    const sum = grad.reduce((total, value, j) => total + value * p[j], 0);
    return p.map((value, i) => value * (grad[i] - sum));
  });
}

// dL/dx_i = dL/dy_i − p_i · Σ_j dL/dy_j, with p = softmax(x)
function logSoftmaxBackward(layer, x, shape, gradY) {
  return alongLastAxisBackward(layer, x, gradY, (p, grad) => {
    const sum = grad.reduce((total, value) => total + value, 0);
    return p.map((value, i) => grad[i] - value * sum);
  });
}

// f(softmax(x), dL/dy) of each vector along the last axis, in double precision.
function alongLastAxisBackward(layer, x, gradY, f) {
  const length = layer.shape.at(-1);
  const gradX = new Float64Array(x.length);
  for (let k = 0; k < x.length; k += length) {
    const [vector, grad] = [x, gradY].map((array) => Float64Array.from(array.subarray(k, k + length)));
    gradX.set(f(softmax(vector), grad), k);
  }
  return { x: gradX };
}

// ---- activations, element by element --------------------------------------------------------------------

// With y = f(x) for each number by itself: dL/dx = dL/dy · f'(x). `derivative` stays with the function, since
// terms.js needs it, too.
function timesDerivative(derivative) {
  const backward = (layer, x, shape, gradY) => {
    const gradX = new Float32Array(x.length);
    for (let k = 0; k < x.length; k++) {
      if (gradY[k] !== 0) gradX[k] = gradY[k] * derivative(x[k], layer);
    }
    return { x: gradX };
  };
  return Object.assign(backward, { derivative });
}

// Φ(x) of gelu, and Φ'(x) = exp(−x²/2) / √(2π); or that of the approximation ½·(1 + tanh u)
function normalDistribution(x, approximate) {
  if (!approximate) {
    return [(1 + erf(x * Math.SQRT1_2)) / 2, Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)];
  }
  const t = Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
  return [(1 + t) / 2, ((1 - t * t) / 2) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x)];
}

// f'(x) = Φ(x) + x·Φ'(x)
function geluDerivative(x, { approximate }) {
  const [phi, slope] = normalDistribution(x, approximate);
  return phi + x * slope;
}

// f'(x) = σ + x·σ·(1 − σ), since σ' = σ·(1 − σ)
function siluDerivative(x) {
  const s = sigmoid(x);
  return s + x * s * (1 - s);
}

const unchanged = (layer, x, shape, gradY) => ({ x: gradY }); // of y = x

// ---- the layers by their names in architectures.yaml ----------------------------------------------------

// Each is a function of (layer, x, shape of x, dL/dy, pass) and gives {x: dL/dx, and the gradient of each
// parameter by its name}.
const BACKWARD = {
  avg_pool2d: avgPool2dBackward,
  batch_norm: batchNormBackward,
  conv2d: conv2dBackward,
  dense: denseBackward,
  dropout: unchanged,
  elu: timesDerivative((x, { alpha }) => (x > 0 ? 1 : alpha * Math.exp(x))),
  flatten: unchanged,
  gelu: timesDerivative(geluDerivative),
  global_avg_pool2d: globalAvgPool2dBackward,
  global_max_pool2d: globalMaxPool2dBackward,
  layer_norm: layerNormBackward,
  leaky_relu: timesDerivative((x, { slope }) => (x > 0 ? 1 : slope)),
  log_softmax: logSoftmaxBackward,
  max_pool2d: maxPool2dBackward,
  relu: timesDerivative((x) => (x > 0 ? 1 : 0)),
  scale: timesDerivative((x, { factor }) => factor),
  sigmoid: timesDerivative((x) => sigmoid(x) * (1 - sigmoid(x))),
  silu: timesDerivative(siluDerivative),
  softmax: softmaxBackward,
  spatial_dropout: unchanged,
  tanh: timesDerivative((x) => 1 - Math.tanh(x) ** 2),

  // The chain rule, last layer to first: dL/dx of one layer is dL/dy of the one before.
  sequential(layer, x, shape, gradY, pass) {
    const children = Object.values(layer.children);
    for (let k = children.length - 1; k >= 0; k--) {
      const before = children[k - 1];
      const input = before ? pass.y[before.name] : x;
      gradY = backward(children[k], input, before?.shape ?? shape, gradY, pass);
    }
    return { x: gradY };
  },

  // y is a sum, so each branch receives dL/dy, and x the sum of what the branches return.
  residual(layer, x, shape, gradY, pass) {
    const { layers, shortcut } = layer.children;
    const gradX = backward(layers, x, shape, gradY, pass);
    const other = shortcut ? backward(shortcut, x, shape, gradY, pass) : gradY;
    return { x: gradX.map((value, k) => value + other[k]) };
  },
};

function withoutMissing(gradients) {
  return Object.fromEntries(Object.entries(gradients).filter(([, array]) => array));
}

// dL/dx of the layer. `pass` stores it, dL/dy and the gradients of the layer's parameters.
function backward(layer, x, shape, gradY, pass) {
  if (!BACKWARD[layer.type]) throw new Error(`this page has no backward pass of layer ${layer.type}`);
  const gradients = BACKWARD[layer.type](layer, x, shape, gradY, pass);
  for (const [name, array] of Object.entries(gradients)) {
    const rounded = array instanceof Float32Array ? array : new Float32Array(array);
    if (name === "x") pass.grad_x[layer.name] = rounded;
    else pass.gradients[parameterName(layer, name)] = rounded;
  }
  pass.grad_y[layer.name] = gradY;
  return pass.grad_x[layer.name];
}

// Its name in the checkpoint: "4.layers.0.kernel"
function parameterName(layer, name) {
  return layer.name ? `${layer.name}.${name}` : name;
}

// ---- one image, and a step ------------------------------------------------------------------------------

// All numbers of one image on its way to the loss named `lossName` and back:
//     x, shape, label, lossName   what was given
//     loss                        L, one number
//     y, grad_y, grad_x           for each layer by name: its output, dL/d(output) and dL/d(input)
//     gradients                   dL/dθ for each parameter by its name in the checkpoint, such as "0.kernel"
//     won                         for each layer that takes maxima: 1 for each input that is one, else 0
// "" is the whole network, so grad_x[""] is the gradient of the image. Arrays may be shared: flatten's output
// is its input.
// Without a label (null), it is the network's own answer.
function differentiate(network, x, shape, label, lossName) {
  const pass = { network, x, shape, label, lossName, y: {}, grad_y: {}, grad_x: {}, gradients: {}, won: {} };
  const outputs = forward(network, x, shape, pass.y);
  pass.label = label ??= answerOf(outputs);
  const [loss, gradOutputs] = LOSSES[lossName](outputs, label);
  pass.loss = loss;
  backward(network, x, shape, gradOutputs, pass);
  return pass;
}

// The number of the class with the largest output; in a tie, the first.
function answerOf(outputs) {
  return outputs.reduce((best, value, k) => (value > outputs[best] ? k : best), 0);
}

// {loss, gradients} of the mean loss over `examples`, a list of {pixels, label}. The images do not see one
// another, so that each gradient is the mean of those of the images.
function differentiateMean(network, examples, shape, lossName) {
  let loss = 0;
  const sums = {};
  for (const { pixels, label } of examples) {
    const pass = differentiate(network, pixels, shape, label, lossName);
    loss += pass.loss / examples.length;
    for (const [name, gradient] of Object.entries(pass.gradients)) {
      const sum = (sums[name] ??= new Float64Array(gradient.length));
      for (let k = 0; k < sum.length; k++) sum[k] += gradient[k] / examples.length;
    }
  }
  const gradients = Object.entries(sums).map(([name, sum]) => [name, new Float32Array(sum)]);
  return { loss, gradients: Object.fromEntries(gradients) };
}

// The network's own arrays by their names in the checkpoint, running statistics included.
function arraysOf(layer, found = {}) {
  for (const [name, array] of Object.entries(layer.arrays ?? {})) found[parameterName(layer, name)] = array;
  for (const child of Object.values(layer.children)) arraysOf(child, found);
  return found;
}

// One step of SGD, θ = θ − learningRate · dL/dθ, computed in double precision and rounded to float32.
// Returns what `undo` needs: a copy of each parameter as it was.
function step(network, gradients, learningRate) {
  const arrays = arraysOf(network);
  const before = {};
  for (const [name, gradient] of Object.entries(gradients)) {
    const array = arrays[name];
    before[name] = array.slice();
    for (let k = 0; k < array.length; k++) array[k] -= learningRate * gradient[k];
  }
  return before;
}

// Gives the parameters the very bits that they had before the step.
function undo(network, before) {
  const arrays = arraysOf(network);
  for (const [name, array] of Object.entries(before)) arrays[name].set(array);
}
