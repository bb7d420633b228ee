"use strict";
// The paper: strokes of a pen, or a picture in their place, and the image that they become.

const SIDE = 560; // of the paper's longer side, in the canvas's own pixels
const PEN = SIDE / 10; // width of a stroke

// ---- ink as an image ------------------------------------------------------------------------------------

const boxSide = (height, width) => (20 / 28) * Math.min(height, width); // of a digit, in MNIST

// Ink as an image of `height` x `width` numbers from 0 to 1, framed as the makers of MNIST did: the ink's
// bounding box is scaled in proportion until it fits a box of 20 of 28 pixels, and its centre of mass is
// placed in the middle. Each pixel is the mean of the ink in its square, so that edges are smooth.
// `data` has inkHeight x inkWidth numbers; positive ones are ink. The result is null if there is none.
// `scale` is the number of ink's pixels for a pixel of the image, if it is known.
// Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section III-A.
function frame({ data, width: inkWidth, height: inkHeight }, height, width, scale = null) {
  let [top, bottom, left, right] = [inkHeight, 0, inkWidth, 0];
  let [mass, rows, columns] = [0, 0, 0];
  for (let row = 0; row < inkHeight; row++) {
    for (let column = 0; column < inkWidth; column++) {
      const value = data[row * inkWidth + column];
      if (!(value > 0)) continue;
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
      [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
      mass += value;
      rows += value * (row + 0.5);
      columns += value * (column + 0.5);
    }
  }
  if (mass === 0) return null;
  scale ??= Math.max(bottom - top, right - left) / boxSide(height, width);
  // Where the image begins in the ink; an off-centre mass must not push ink out of it.
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const originY = clamp(rows / mass - (scale * height) / 2, bottom - scale * height, top);
  const originX = clamp(columns / mass - (scale * width) / 2, right - scale * width, left);

  const vertical = overlaps(originY, scale, height, inkHeight);
  const horizontal = overlaps(originX, scale, width, inkWidth);
  const image = new Float32Array(height * width);
  vertical.forEach((rowOverlaps, p) =>
    horizontal.forEach((columnOverlaps, q) => {
      let sum = 0;
      for (const [row, rowShare] of rowOverlaps) {
        for (const [column, share] of columnOverlaps) sum += rowShare * share * data[row * inkWidth + column];
      }
      image[p * width + q] = sum;
    }),
  );
  return image;
}

// For each of `count` intervals of length `scale`, starting at `origin`: its pixels as [index, share].
function overlaps(origin, scale, count, size) {
  return Array.from({ length: count }, (_, k) => {
    const [start, end] = [origin + k * scale, origin + (k + 1) * scale];
    const found = [];
    for (let index = Math.max(0, Math.floor(start)); index < Math.min(size, Math.ceil(end)); index++) {
      found.push([index, (Math.min(end, index + 1) - Math.max(start, index)) / scale]);
    }
    return found;
  });
}

// The mean of the ink in each square of `factor` x `factor` pixels.
function shrink({ data, width }, factor, imageHeight, imageWidth) {
  const image = new Float32Array(imageHeight * imageWidth);
  for (let k = 0; k < data.length; k++) {
    const [row, column] = [Math.floor(k / width), k % width];
    image[Math.floor(row / factor) * imageWidth + Math.floor(column / factor)] += data[k];
  }
  return image.map((sum) => sum / factor ** 2);
}

// Lines through the points of each stroke, [x, y] · scale + shift.
function pathOf(strokes, scale = 1, [shiftX, shiftY] = [0, 0]) {
  const path = new Path2D();
  for (const stroke of strokes) {
    stroke.forEach(([x, y], k) => path[k ? "lineTo" : "moveTo"](x * scale + shiftX, y * scale + shiftY));
    const [x, y] = stroke.at(-1);
    path.lineTo(x * scale + shiftX + 0.5, y * scale + shiftY); // a dot: lines of length 0 are not drawn
  }
  return path;
}

// Strokes become ink on a canvas of their own, which has some pixels for each pixel of the image.
class Pen {
  constructor({ image_shape: [height, width], framing }) {
    Object.assign(this, { height, width, isDigit: framing === "digit" });
    this.factor = this.isDigit ? 8 : Math.max(1, Math.round(224 / Math.max(height, width)));
    this.canvas = makeCanvas(width * this.factor, height * this.factor);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.context, { lineCap: "round", lineJoin: "round" });
  }

  // An image of ink, height x width numbers from 0 to 1; null for no strokes.
  image(strokes) {
    if (strokes.length === 0) return null;
    if (!this.isDigit) {
      const scale = (this.factor * Math.max(this.height, this.width)) / SIDE;
      return shrink(this.ink(pathOf(strokes, scale), PEN * scale), this.factor, this.height, this.width);
    }
    // The points are scaled to fit MNIST's box, and the pen keeps its width: a small drawing has fine lines,
    // too. A dot remains one: what is smaller than a twentieth of the paper does not fill the box.
    const box = this.factor * boxSide(this.height, this.width);
    const width = box / 8; // 2.5 of 20 pixels
    const ranges = [0, 1].map((axis) => {
      const values = strokes.flatMap((stroke) => stroke.map((point) => point[axis]));
      return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    });
    const extent = Math.max(SIDE / 20, ...ranges.map(([low, high]) => high - low));
    const scale = (box - width) / extent;
    const middle = [this.canvas.width / 2, this.canvas.height / 2];
    const shift = ranges.map(([low, high], axis) => middle[axis] - (scale * (low + high)) / 2);
    return frame(this.ink(pathOf(strokes, scale, shift), width), this.height, this.width, this.factor);
  }

  ink(path, lineWidth) {
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    this.context.lineWidth = lineWidth;
    this.context.stroke(path);
    const { data: rgba } = this.context.getImageData(0, 0, width, height);
    const data = new Float32Array(width * height);
    for (let k = 0; k < data.length; k++) data[k] = rgba[4 * k + 3] / 255; // the opacity
    return { data, width, height };
  }
}

// ---- the paper ------------------------------------------------------------------------------------------

class Drawing {
  // `data` describes what the network was trained on; `onChange` is called whenever the paper changes.
  constructor(canvas, data, onChange) {
    this.canvas = canvas;
    this.data = data;
    this.onChange = onChange;
    this.state = { strokes: [], picture: null };
    this.past = []; // the states that undo goes back to
    this.pointer = null; // the id of the pointer that draws
    const [height, width, channels] = data.image_shape;
    const proportions = data.framing === "digit" ? [1, 1] : [width, height];
    const scale = SIDE / Math.max(...proportions);
    [canvas.width, canvas.height] = proportions.map((length) => Math.max(1, Math.round(length * scale)));
    this.context = canvas.getContext("2d");
    const hasDarkPaper = data.background[0] < 0.5;
    this.inkValue = hasDarkPaper ? 1 : 0;
    const colour = [0, 1, 2].map((c) => Math.round(255 * data.background[Math.min(c, channels - 1)]));
    this.paper = `rgb(${colour.join(" ")})`;
    const ink = hasDarkPaper ? "white" : "black";
    Object.assign(this.context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: ink });
    this.canDraw = channels === 1;
    if (this.canDraw) {
      this.pen = new Pen(data);
      this.listen();
    }
  }

  // One pointer draws at a time: mouse, finger or pen.
  listen() {
    const point = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return [x * this.canvas.width, y * this.canvas.height];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (this.pointer !== null || event.button !== 0) return;
      const { strokes, picture } = this.state;
      const stroke = [point(event)];
      this.past.push(this.state);
      this.state = { strokes: [...strokes, stroke], picture: null };
      if (picture) this.clearPaper();
      this.context.stroke(pathOf([stroke]));
      this.pointer = event.pointerId;
      this.canvas.setPointerCapture(this.pointer);
      this.onChange();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const stroke = this.state.strokes.at(-1);
      const between = event.getCoalescedEvents?.() ?? [];
      const start = stroke.length - 1;
      for (const part of between.length ? between : [event]) {
        const [[x, y], [lastX, lastY]] = [point(part), stroke.at(-1)];
        if (Math.hypot(x - lastX, y - lastY) >= 2) stroke.push([x, y]); // less is not visible
      }
      this.context.stroke(pathOf([stroke.slice(start)]));
      this.onChange();
    });
    const end = (event) => {
      if (event.pointerId === this.pointer) this.pointer = null;
    };
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
      this.canvas.addEventListener(type, end);
    }
  }

  get isEmpty() {
    return this.state.strokes.length === 0 && this.state.picture === null;
  }

  change(state) {
    this.past.push(this.state);
    this.set(state);
  }

  set(state) {
    this.pointer = null;
    this.state = state;
    this.paint();
  }

  undo() {
    this.set(this.past.pop() ?? this.state);
  }

  clear() {
    if (!this.isEmpty) this.change({ strokes: [], picture: null });
  }

  // Replaces the drawing by a picture, {canvas, bytes, text, border, isTestImage}: what is shown, what the
  // network receives, what the page says of it, the colour beside it (if not the paper's), and whether it is
  // one of the page's own.
  show(picture) {
    this.change({ strokes: [], picture });
  }

  clearPaper(colour = this.paper) {
    this.context.fillStyle = colour;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  paint() {
    const { strokes, picture } = this.state;
    this.clearPaper(picture?.border);
    if (picture) {
      const { width, height } = this.canvas;
      const fit = Math.min(width / picture.canvas.width, height / picture.canvas.height);
      const size = [picture.canvas.width * fit, picture.canvas.height * fit];
      this.context.imageSmoothingEnabled = fit < 2;
      this.context.drawImage(picture.canvas, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
    }
    this.context.stroke(pathOf(strokes));
    this.onChange();
  }

  // The image for the network, numbers from 0 to 1 in its order (row, column, channel); null if the paper is
  // empty. A drawing has one channel: its ink is the opposite of the background.
  image() {
    const { strokes, picture } = this.state;
    if (picture) return Float32Array.from(picture.bytes, (byte) => byte / 255);
    const [background] = this.data.background;
    return this.pen?.image(strokes)?.map((ink) => background + ink * (this.inkValue - background)) ?? null;
  }
}
