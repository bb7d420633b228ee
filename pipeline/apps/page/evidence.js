"use strict";
// Which parts of a picture speak for and against a class: blank a patch, and see how the answer changes.
// Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (2014), section 4.2.

// log(p_k / (1 − p_k)), the logarithm of the odds of class k: log p_k − log Σ_{j≠k} p_j, where logits may
// replace log p, since they differ from it by a constant. Unlike p_k it does not saturate near 1.
function logOdds(logits, k) {
  const others = logits.filter((_, j) => j !== k);
  const largest = Math.max(...others);
  return logits[k] - largest - Math.log(others.reduce((sum, z) => sum + Math.exp(z - largest), 0));
}

// The patches of an image, {top, left, size}: squares, about a seventh of it wide. Each overlaps
// the next by half, and they extend beyond the edges, so that every pixel lies in four of them.
function patchesOf(height, width) {
  const step = Math.max(1, Math.round(Math.min(height, width) / 14));
  const size = 2 * step;
  const patches = [];
  for (let top = step - size; top < height; top += step) {
    for (let left = step - size; left < width; left += step) patches.push({ top, left, size });
  }
  return patches;
}

// The pixels of a patch that lie in the image, row · width + column.
function pixelsIn({ top, left, size }, [height, width]) {
  const pixels = [];
  for (let row = Math.max(0, top); row < Math.min(height, top + size); row++) {
    for (let column = Math.max(0, left); column < Math.min(width, left + size); column++) {
      pixels.push(row * width + column);
    }
  }
  return pixels;
}

// `pixels` with the patch at `background`; null if nothing would change.
function blank(pixels, shape, patch, background) {
  const channels = shape[2];
  const blanked = pixels.slice();
  let changed = false;
  for (const pixel of pixelsIn(patch, shape)) {
    const values = blanked.subarray(pixel * channels, (pixel + 1) * channels);
    changed ||= values.some((value) => value !== background);
    values.fill(background);
  }
  return changed ? blanked : null;
}

// Yields, as patches are tried, {perPixel, strongest, weakest}. A patch has
//     weight = log-odds of class k with it − without it
// positive if it speaks for the class. `perPixel` is the mean of the weights over the patches that a pixel
// lies in; `strongest` and `weakest` are {patch, weight, logits without it} for the greatest and the least.
// `logitsOf(pixels)` asks the network.
async function* gatherEvidence(pixels, shape, background, k, logitsOf) {
  const [height, width] = shape;
  const whole = logOdds(await logitsOf(pixels), k);
  const perPixel = new Float32Array(height * width);
  let strongest = null;
  let weakest = null;
  for (const patch of patchesOf(height, width)) {
    const blanked = blank(pixels, shape, patch, background);
    if (blanked === null) continue;
    const logits = await logitsOf(blanked);
    const found = { patch, weight: whole - logOdds(logits, k), logits };
    for (const pixel of pixelsIn(patch, shape)) perPixel[pixel] += found.weight / 4;
    if (strongest === null || found.weight > strongest.weight) strongest = found;
    if (weakest === null || found.weight < weakest.weight) weakest = found;
    yield { perPixel, strongest, weakest };
  }
}
