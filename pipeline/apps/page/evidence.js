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

// The patches of an image, {top, left, height, width}: about a seventh of it high and wide. Each overlaps the
// next by half, and they extend beyond the edges, so that every pixel lies in four of them.
function patchesOf(height, width) {
  const [stepY, stepX] = [height, width].map((length) => Math.ceil(length / 15));
  const patches = [];
  for (let top = -stepY; top < height; top += stepY) {
    for (let left = -stepX; left < width; left += stepX) {
      patches.push({ top, left, height: 2 * stepY, width: 2 * stepX });
    }
  }
  return patches;
}

// The pixels of a patch that lie in the image, row · width + column.
function pixelsIn(patch, [height, width]) {
  const pixels = [];
  for (let row = Math.max(0, patch.top); row < Math.min(height, patch.top + patch.height); row++) {
    for (let column = Math.max(0, patch.left); column < Math.min(width, patch.left + patch.width); column++) {
      pixels.push(row * width + column);
    }
  }
  return pixels;
}

// `pixels` with the patch in the background's colour, a number for each channel; null if nothing changes.
function blank(pixels, shape, patch, background) {
  const channels = shape[2];
  const blanked = pixels.slice();
  let changed = false;
  for (const pixel of pixelsIn(patch, shape)) {
    const values = blanked.subarray(pixel * channels, (pixel + 1) * channels);
    changed ||= values.some((value, c) => value !== background[c]);
    values.set(background);
  }
  return changed ? blanked : null;
}

const LEAST_FACTOR = 1.1; // of the odds, for a patch to be worth a frame

// The mean weight that is shown in full colour: the greatest one, unless all of them are weak.
function fullColour(perPixel) {
  return perPixel.reduce((a, b) => Math.max(a, Math.abs(b)), Math.log(LEAST_FACTOR));
}

// Yields {perPixel, strongest, weakest} as patches are tried. A patch has
//     weight = log-odds of class k with it − without it
// positive if it speaks for the class. `perPixel` is the mean of the weights over the patches that a pixel
// lies in. At the end, `strongest` and `weakest` are {patch, weight, logits without it}: of the patches that
// multiply the odds by LEAST_FACTOR, or divide them by it, the ones with the greatest and the least mean of
// `perPixel`, which must be a tenth of full colour: what is framed is coloured. Null if there is none.
// `logitsOf(pixels)` asks the network.
async function* gatherEvidence(pixels, shape, background, k, logitsOf) {
  const [height, width] = shape;
  const whole = logOdds(await logitsOf(pixels), k);
  const perPixel = new Float32Array(height * width);
  const tried = [];
  for (const patch of patchesOf(height, width)) {
    const blanked = blank(pixels, shape, patch, background);
    if (blanked === null) continue;
    const logits = await logitsOf(blanked);
    const weight = whole - logOdds(logits, k);
    for (const pixel of pixelsIn(patch, shape)) perPixel[pixel] += weight / 4;
    tried.push({ patch, weight, logits });
    yield { perPixel, strongest: null, weakest: null };
  }
  yield { perPixel, strongest: mostColoured(1), weakest: mostColoured(-1) };

  function mostColoured(sign) {
    let best = null;
    let most = fullColour(perPixel) / 10;
    for (const found of tried) {
      if (sign * found.weight < Math.log(LEAST_FACTOR)) continue;
      const inside = pixelsIn(found.patch, shape);
      const mean = inside.reduce((sum, pixel) => sum + sign * perPixel[pixel], 0) / inside.length;
      if (mean > most) [best, most] = [found, mean];
    }
    return best;
  }
}
