"use strict";
// Pictures from files, the clipboard or the camera, and the bytes that they become, as in
// pipeline/data/pictures.py. A raster is {data, width, height, channels}, in the order row, column, channel.

const LARGEST_PICTURE = 4096; // pixels of the longer side: a larger picture is reduced first

// A canvas with the picture of an image file, upright according to its EXIF data. White lies behind
// transparent parts. An Error, with a message for the reader, if the browser cannot decode it.
async function readPicture(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    const name = file.name || "The picture";
    throw new Error(`${name} is not an image that this browser can read. Try a PNG or JPEG file.`);
  });
  const canvas = toCanvas(bitmap, bitmap.width, bitmap.height);
  bitmap.close(); // frees its memory at once
  return canvas;
}

// A canvas with a picture on white, at most `largest` pixels high and wide.
function toCanvas(picture, width, height, largest = LARGEST_PICTURE) {
  const scale = Math.min(1, largest / Math.max(width, height));
  const side = (length) => Math.max(1, Math.round(length * scale));
  const canvas = makeCanvas(side(width), side(height));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// The canvas as a raster in colour, or in grey: L = 0.299 R + 0.587 G + 0.114 B
function toRaster(canvas, channels) {
  const { width, height } = canvas;
  const { data: rgba } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const data = new Uint8ClampedArray(width * height * channels);
  for (let k = 0; k < width * height; k++) {
    const from = 4 * k;
    if (channels === 1) data[k] = 0.299 * rgba[from] + 0.587 * rgba[from + 1] + 0.114 * rgba[from + 2];
    else for (let c = 0; c < 3; c++) data[3 * k + c] = rgba[from + c];
  }
  return { data, width, height, channels };
}

// The bytes that a network receives for a picture: crop takes the largest middle part that has the
// proportions of `shape`; pad takes all of it, between borders in the median colour of its own border;
// stretch changes its proportions.
function fitPicture(raster, [height, width], framing) {
  if (raster.height === height && raster.width === width) return raster.data;
  if (framing === "pad") return padPicture(raster, height, width);
  const box = [0, 0, raster.width, raster.height]; // left, top, right, bottom
  if (framing === "crop") {
    const scale = Math.min(raster.width / width, raster.height / height);
    const [left, top] = [(raster.width - scale * width) / 2, (raster.height - scale * height) / 2];
    box.splice(0, 4, left, top, left + scale * width, top + scale * height);
  }
  return resize(raster, box, height, width).data;
}

function padPicture(raster, height, width) {
  const { channels } = raster;
  const scale = Math.min(width / raster.width, height / raster.height);
  const inner = [raster.height, raster.width].map((length) => Math.max(1, Math.round(length * scale)));
  const small = resize(raster, [0, 0, raster.width, raster.height], ...inner);
  const [top, left] = [Math.floor((height - inner[0]) / 2), Math.floor((width - inner[1]) / 2)];
  const padded = new Uint8ClampedArray(height * width * channels);
  const colour = borderColour(small);
  padded.forEach((_, k) => (padded[k] = colour[k % channels]));
  for (let row = 0; row < inner[0]; row++) {
    const line = small.data.subarray(row * inner[1] * channels, (row + 1) * inner[1] * channels);
    padded.set(line, ((top + row) * width + left) * channels);
  }
  return padded;
}

// The colour of the borders that `padPicture` put beside a picture, for a canvas. If there are any, the last
// pixel lies in one.
function paddingOf(bytes, channels) {
  const last = bytes.slice(-channels);
  return `rgb(${[0, 1, 2].map((c) => last[Math.min(c, channels - 1)]).join(" ")})`;
}

// The median of each channel along the border.
function borderColour({ data, width, height, channels }) {
  const places = [];
  for (let column = 0; column < width; column++) places.push(column, (height - 1) * width + column);
  for (let row = 0; row < height; row++) places.push(row * width, row * width + width - 1);
  return Array.from({ length: channels }, (_, c) => {
    const values = places.map((place) => data[place * channels + c]).sort((a, b) => a - b);
    return Math.floor((values[values.length / 2 - 1] + values[values.length / 2]) / 2); // an even number
  });
}

// The part of a raster in a box, at another size: bicubic interpolation, in which a pixel of the smaller
// picture also averages over all that it covers, as in Pillow.
function resize(raster, [left, top, right, bottom], height, width) {
  const { channels } = raster;
  const rows = bicubicWeights(raster.height, top, bottom, height);
  const columns = bicubicWeights(raster.width, left, right, width);
  const first = rows[0].first; // rows outside the box are not needed
  const last = rows.at(-1).first + rows.at(-1).weights.length;
  const narrow = new Uint8ClampedArray((last - first) * width * channels); // it rounds and clamps
  for (let row = first; row < last; row++) {
    columns.forEach(({ first: from, weights }, column) => {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        let k = (row * raster.width + from) * channels + c;
        for (let i = 0; i < weights.length; i++, k += channels) sum += weights[i] * raster.data[k];
        narrow[((row - first) * width + column) * channels + c] = sum;
      }
    });
  }
  const data = new Uint8ClampedArray(height * width * channels);
  rows.forEach(({ first: from, weights }, row) => {
    for (let k = 0; k < width * channels; k++) {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * narrow[(from - first + i) * width * channels + k]));
      data[row * width * channels + k] = sum;
    }
  });
  return { data, width, height, channels };
}

// For each of `count` intervals between `start` and `end`: the first of the `size` pixels that count for it,
// and the weights of this one and the next ones.
function bicubicWeights(size, start, end, count) {
  const step = (end - start) / count;
  const stretch = Math.max(step, 1);
  return Array.from({ length: count }, (_, k) => {
    const centre = start + (k + 0.5) * step;
    const first = Math.max(0, Math.floor(centre - 2 * stretch + 0.5));
    const last = Math.min(size, Math.floor(centre + 2 * stretch + 0.5));
    const weights = [];
    for (let pixel = first; pixel < last; pixel++) weights.push(bicubic((pixel + 0.5 - centre) / stretch));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: Float64Array.from(weights, (weight) => weight / sum) };
  });
}

// Source: Keys, "Cubic convolution interpolation for digital image processing" (1981), with a = −1/2.
function bicubic(x) {
  const t = Math.abs(x);
  if (t < 1) return 1.5 * t ** 3 - 2.5 * t ** 2 + 1;
  return t < 2 ? -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2 : 0;
}

// The ink of a digit in a picture, from 0 to 1: how far a pixel is from the colour of the border, towards
// the darker side if the border is light, else towards the lighter one. Less than a quarter of the largest
// distance is paper.
function inkOf({ data, width, height }) {
  const [paper] = borderColour({ data, width, height, channels: 1 });
  const sign = paper > 127 ? -1 : 1;
  const largest = data.reduce((found, value) => Math.max(found, sign * (value - paper)), 0);
  const distances = Float32Array.from(data, (value) => (sign * (value - paper)) / largest);
  return { data: distances.map((distance) => (distance >= 0.25 ? distance : 0)), width, height };
}
