"use strict";
// The network, forward only: what cnn/layers computes with training=False, in the browser.
//
// worker.js runs it, so that drawing never waits for it. An activation is a Float32Array in the order
// (row, column, channel), the channel fastest, as in NumPy. Sums are computed in double precision and rounded
// to float32 once per layer. A layer is what pipeline/apps/playground.py describes: its type, its output's
// shape, its options, its arrays and its children by name.

// ---- sliding windows ------------------------------------------------------------------------------------

const PADDING = -1;
const BEYOND = -2; // outside the padding, too (ceil_mode)

// For each window and each of its pixels the pixel's number, row · width + column, or where it is instead:
//     result[(p · out_w + q) · kernel_h · kernel_w + i · kernel_w + j]
//     row = p·stride_h + i·dilation_h − top,    column = q·stride_w + j·dilation_w − left
// It is computed once for each layer.
function windows(layer, [height, width]) {
  if (layer.windows) return layer.windows;
  const [outHeight, outWidth] = layer.shape;
  const [kernelHeight, kernelWidth] = layer.kernel_size;
  const [strideHeight, strideWidth] = layer.stride;
  const [dilationHeight, dilationWidth] = layer.dilation;
  const [[top, bottom], [left, right]] = layer.pads;
  layer.windows = new Int32Array(outHeight * outWidth * kernelHeight * kernelWidth);
  let k = 0;
  for (let p = 0; p < outHeight; p++) {
    for (let q = 0; q < outWidth; q++) {
      for (let i = 0; i < kernelHeight; i++) {
        for (let j = 0; j < kernelWidth; j++) {
          const row = p * strideHeight + i * dilationHeight - top;
          const column = q * strideWidth + j * dilationWidth - left;
          const isBeyond = row >= height + bottom || column >= width + right;
          const isInside = row >= 0 && row < height && column >= 0 && column < width;
          layer.windows[k++] = isInside ? row * width + column : isBeyond ? BEYOND : PADDING;
        }
      }
    }
  }
  return layer.windows;
}

// y[p, q, o] = bias[o] + Σ_{i, j, c} x[row, column, c] · kernel[i, j, c, o], where the padding is 0.
// With groups, c runs over the part of the channels that o belongs to.
function conv2d(layer, x, shape) {
  const { kernel, bias } = layer.arrays;
  const pixels = windows(layer, shape);
  const taps = layer.kernel_size[0] * layer.kernel_size[1];
  const [places, out, channels] = [layer.shape[0] * layer.shape[1], layer.shape[2], shape[2]];
  const [inGroup, outGroup] = [channels / layer.groups, out / layer.groups];
  const y = new Float32Array(places * out);
  const sums = new Float64Array(out);
  for (let place = 0; place < places; place++) {
    if (bias) sums.set(bias);
    else sums.fill(0);
    for (let tap = 0; tap < taps; tap++) {
      const pixel = pixels[place * taps + tap];
      if (pixel < 0) continue;
      for (let group = 0; group < layer.groups; group++) {
        const to = group * outGroup;
        for (let c = 0; c < inGroup; c++) {
          const value = x[pixel * channels + group * inGroup + c];
          if (value === 0) continue; // most of a drawing is empty, and ReLU's outputs are often 0
          const first = (tap * inGroup + c) * out + to;
          for (let o = 0; o < outGroup; o++) sums[to + o] += value * kernel[first + o];
        }
      }
    }
    y.set(sums, place * out);
  }
  return y;
}

// y[p, q, c] = max_{i, j} x[row, column, c], where the padding is −∞.
function maxPool2d(layer, x, shape) {
  const pixels = windows(layer, shape);
  const [places, channels] = [layer.shape[0] * layer.shape[1], shape[2]];
  const taps = pixels.length / places;
  const y = new Float32Array(places * channels).fill(-Infinity);
  for (let k = 0; k < pixels.length; k++) {
    if (pixels[k] < 0) continue;
    const [from, to] = [pixels[k] * channels, Math.floor(k / taps) * channels];
    for (let c = 0; c < channels; c++) if (!(x[from + c] <= y[to + c])) y[to + c] = x[from + c];
  }
  return y;
}

// y[p, q, c] = 1/count · Σ_{i, j} x[row, column, c], where the padding is 0. It counts if count_include_pad
// is set; what ceil_mode adds beyond it never counts.
function avgPool2d(layer, x, shape) {
  const pixels = windows(layer, shape);
  const [places, channels] = [layer.shape[0] * layer.shape[1], shape[2]];
  const taps = pixels.length / places;
  const sums = new Float64Array(places * channels);
  const counts = new Float64Array(places);
  for (let k = 0; k < pixels.length; k++) {
    const place = Math.floor(k / taps);
    if (pixels[k] >= 0 || (pixels[k] === PADDING && layer.count_include_pad)) counts[place]++;
    if (pixels[k] < 0) continue;
    for (let c = 0; c < channels; c++) sums[place * channels + c] += x[pixels[k] * channels + c];
  }
  return Float32Array.from(sums, (sum, k) => sum / counts[Math.floor(k / channels)]);
}

// y[c] = 1/(h·w) · Σ_{p, q} x[p, q, c]
function globalAvgPool2d(layer, x, [height, width, channels]) {
  const sums = new Float64Array(channels);
  x.forEach((value, k) => (sums[k % channels] += value));
  return Float32Array.from(sums, (sum) => sum / (height * width));
}

// y[c] = max_{p, q} x[p, q, c]
function globalMaxPool2d(layer, x, [, , channels]) {
  const y = new Float32Array(channels).fill(-Infinity);
  x.forEach((value, k) => (y[k % channels] = Math.max(y[k % channels], value)));
  return y;
}

// ---- vectors and normalisation --------------------------------------------------------------------------

// y[o] = bias[o] + Σ_i x[i] · weight[i, o]
function dense(layer, x) {
  const { weight, bias } = layer.arrays;
  const [out] = layer.shape;
  const sums = Float64Array.from(bias ?? new Float32Array(out));
  for (let i = 0; i < x.length; i++) {
    if (x[i] === 0) continue;
    for (let o = 0; o < out; o++) sums[o] += x[i] * weight[i * out + o];
  }
  return new Float32Array(sums);
}

// y = gamma · (x − mean) / sqrt(var + epsilon) + beta for each channel, with the running statistics.
function batchNorm(layer, x) {
  const { gamma, beta, running_mean: mean, running_var: variance } = layer.arrays;
  const scale = Float64Array.from(variance, (v, c) => (gamma?.[c] ?? 1) / Math.sqrt(v + layer.epsilon));
  const channels = beta.length;
  return x.map((value, k) => (value - mean[k % channels]) * scale[k % channels] + beta[k % channels]);
}

// y = gamma · (x − μ) / sqrt(σ² + epsilon) + beta, with mean and variance over the channels of each pixel.
function layerNorm(layer, x) {
  const { gamma, beta } = layer.arrays;
  return alongLastAxis(layer, x, (pixel) => {
    const mean = pixel.reduce((sum, value) => sum + value, 0) / pixel.length;
    const variance = pixel.reduce((sum, value) => sum + (value - mean) ** 2, 0) / pixel.length;
    const deviation = Math.sqrt(variance + layer.epsilon);
    return pixel.map((value, c) => (gamma[c] * (value - mean)) / deviation + beta[c]);
  });
}

// log p_i = x_i − m − log Σ_j exp(x_j − m), with m = max x, so that no exponential is larger than 1.
function logSoftmax(x) {
  const largest = x.reduce((a, b) => Math.max(a, b));
  const rest = Math.log(x.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return x.map((value) => value - largest - rest);
}

// p_i = exp(x_i) / Σ_j exp(x_j)
function softmax(x) {
  return logSoftmax(x).map(Math.exp);
}

// f of each vector along the last axis, in double precision.
function alongLastAxis(layer, x, f) {
  const length = layer.shape.at(-1);
  const y = new Float32Array(x.length);
  for (let k = 0; k < x.length; k += length) y.set(f(Float64Array.from(x.subarray(k, k + length))), k);
  return y;
}

// ---- activations, element by element --------------------------------------------------------------------

// σ(x) = 1 / (1 + exp(−x)); if exp overflows to ∞, the result is 0, as it should be.
function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// erf(z) = 2/√π · exp(−z²) · Σ_n 2ⁿ·z^(2n+1) / (1·3·5 … (2n+1))
// All terms have the sign of z, so nothing cancels. Beyond 6, erf is ±1 to the last bit.
// Source: Abramowitz & Stegun, "Handbook of mathematical functions" (1964), equation 7.1.6.
function erf(z) {
  if (Math.abs(z) > 6) return Math.sign(z);
  let term = z;
  let sum = z;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * z * z) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
}

// x·Φ(x), with Φ(x) = ½·(1 + erf(x / √2)), or ½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
function gelu(x, approximate) {
  const inner = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  return (x / 2) * (1 + (approximate ? Math.tanh(inner) : erf(x * Math.SQRT1_2)));
}

const identity = (layer, x) => x;
const elementwise = (f) => (layer, x) => x.map((value) => f(value, layer));

// ---- the layers by their names in architectures.yaml ----------------------------------------------------

// Each is a function of (layer, x, shape of x).
const LAYERS = {
  avg_pool2d: avgPool2d,
  batch_norm: batchNorm,
  conv2d,
  dense,
  dropout: identity, // drops in training only
  elu: elementwise((x, { alpha }) => (x > 0 ? x : alpha * Math.expm1(x))),
  flatten: identity, // the order of the numbers is the same
  gelu: elementwise((x, { approximate }) => gelu(x, approximate)),
  global_avg_pool2d: globalAvgPool2d,
  global_max_pool2d: globalMaxPool2d,
  layer_norm: layerNorm,
  leaky_relu: elementwise((x, { slope }) => Math.max(x, slope * x)),
  log_softmax: (layer, x) => alongLastAxis(layer, x, logSoftmax),
  max_pool2d: maxPool2d,
  relu: elementwise((x) => Math.max(x, 0)),
  scale: elementwise((x, { factor }) => factor * x),
  sigmoid: elementwise(sigmoid),
  silu: elementwise((x) => x * sigmoid(x)),
  softmax: (layer, x) => alongLastAxis(layer, x, softmax),
  spatial_dropout: identity,
  tanh: elementwise(Math.tanh),

  // f_last(… f_1(f_0(x)))
  sequential(layer, x, shape, outputs) {
    for (const child of Object.values(layer.children)) {
      x = forward(child, x, shape, outputs);
      shape = child.shape;
    }
    return x;
  },

  // layers(x) + shortcut(x); without a shortcut, x itself
  residual(layer, x, shape, outputs) {
    const { layers, shortcut } = layer.children;
    const y = forward(layers, x, shape, outputs);
    const other = shortcut ? forward(shortcut, x, shape, outputs) : x;
    return y.map((value, k) => value + other[k]);
  },
};

// The layer's output. It is stored in `outputs` by the layer's name, as are those of the layers inside. If
// there is a function outputs[REPLACE] of (of, the layer's name, numbers), then it gives what goes on in
// place of the layer's input ("x") and its output ("y").
function forward(layer, x, shape, outputs) {
  if (!LAYERS[layer.type]) throw new Error(`this page has no layer ${layer.type}`);
  const replace = outputs[REPLACE] ?? ((of, name, numbers) => numbers);
  const y = LAYERS[layer.type](layer, replace("x", layer.name, x), shape, outputs);
  return (outputs[layer.name] = replace("y", layer.name, y));
}

const REPLACE = Symbol("replace");

// Replaces the position of each array by its numbers.
function attachArrays(layer, weights) {
  for (const [name, { start, length }] of Object.entries(layer.arrays ?? {})) {
    layer.arrays[name] = weights.subarray(start, start + length);
  }
  for (const child of Object.values(layer.children)) attachArrays(child, weights);
}
