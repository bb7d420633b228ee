"use strict";
// The drawing: strokes of a pen on a square canvas, or an example in their place, and the image that the
// network receives.

const SIDE = 560; // of the canvas, in its own pixels
const PEN = SIDE / 10; // width of a stroke: about 2.8 pixels of 28, as in MNIST

// The drawing as an image of `height` x `width` numbers from 0 to 1, framed as the makers of MNIST did:
// the ink's bounding box is scaled in proportion until it fits a box of 20 of 28 pixels, and its centre of
// mass is placed in the middle. Each pixel is the mean of the ink in its square, so that edges are smooth.
// `ink` has side x side numbers; positive ones are ink. The result is null if there is none.
// Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section III-A.
function frame(ink, side, height, width) {
  let [top, bottom, left, right] = [side, 0, side, 0];
  let [mass, rows, columns] = [0, 0, 0];
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const value = ink[row * side + column];
      if (!(value > 0)) continue;
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
      [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
      mass += value;
      rows += value * (row + 0.5);
      columns += value * (column + 0.5);
    }
  }
  if (mass === 0) return null;
  const box = (20 / 28) * Math.min(height, width);
  const scale = Math.max(bottom - top, right - left) / box; // canvas pixels per pixel of the image
  // Where the image begins on the canvas; an off-centre mass must not push ink out of it.
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const originY = clamp(rows / mass - (scale * height) / 2, bottom - scale * height, top);
  const originX = clamp(columns / mass - (scale * width) / 2, right - scale * width, left);

  const vertical = overlaps(originY, scale, height, side);
  const horizontal = overlaps(originX, scale, width, side);
  const image = new Float32Array(height * width);
  vertical.forEach((rowOverlaps, p) =>
    horizontal.forEach((columnOverlaps, q) => {
      let sum = 0;
      for (const [row, rowShare] of rowOverlaps) {
        for (const [column, share] of columnOverlaps) sum += rowShare * share * ink[row * side + column];
      }
      image[p * width + q] = sum;
    }),
  );
  return image;
}

// For each of `count` intervals of length `scale`, starting at `origin`: its canvas pixels as [index, share].
function overlaps(origin, scale, count, side) {
  return Array.from({ length: count }, (_, k) => {
    const [start, end] = [origin + k * scale, origin + (k + 1) * scale];
    const found = [];
    for (let index = Math.max(0, Math.floor(start)); index < Math.min(side, Math.ceil(end)); index++) {
      found.push([index, (Math.min(end, index + 1) - Math.max(start, index)) / scale]);
    }
    return found;
  });
}

class Drawing {
  // `data` describes what the network was trained on; `onChange` is called whenever the picture changes.
  constructor(canvas, data, onChange) {
    this.canvas = canvas;
    this.data = data;
    this.onChange = onChange;
    this.state = { strokes: [], example: null };
    this.past = []; // the states that undo goes back to
    this.pointer = null; // the id of the pointer that draws
    canvas.width = canvas.height = SIDE;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.context, { lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    this.listen();
  }

  // One pointer draws at a time: mouse, finger or pen.
  listen() {
    const point = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return [x * SIDE, y * SIDE];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (this.pointer !== null || event.button !== 0) return;
      this.change({ strokes: [...this.state.strokes, [point(event)]], example: null });
      this.pointer = event.pointerId;
      this.canvas.setPointerCapture(this.pointer);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const stroke = this.state.strokes.at(-1);
      const between = event.getCoalescedEvents?.() ?? [];
      for (const part of between.length ? between : [event]) {
        stroke.push(point(part));
        this.paintLine(stroke.at(-2), stroke.at(-1));
      }
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
    return this.state.strokes.length === 0 && this.state.example === null;
  }

  change(state) {
    this.pointer = null;
    this.past.push(this.state);
    this.state = state;
    this.paint();
  }

  undo() {
    this.pointer = null;
    this.state = this.past.pop() ?? this.state;
    this.paint();
  }

  clear() {
    if (!this.isEmpty) this.change({ strokes: [], example: null });
  }

  // Replaces the drawing by an image; the network receives the image's pixels unchanged.
  show(example) {
    this.change({ strokes: [], example });
  }

  paint() {
    this.context.clearRect(0, 0, SIDE, SIDE);
    const { strokes, example } = this.state;
    if (example) {
      this.context.imageSmoothingEnabled = false;
      const fit = SIDE / Math.max(example.brightness.width, example.brightness.height);
      const [width, height] = [example.brightness.width * fit, example.brightness.height * fit];
      this.context.drawImage(example.brightness, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    }
    for (const stroke of strokes) {
      stroke.forEach((end, k) => this.paintLine(stroke[Math.max(k - 1, 0)], end));
    }
    this.onChange();
  }

  paintLine(start, end) {
    this.context.beginPath();
    this.context.moveTo(...start);
    const [x, y] = end;
    this.context.lineTo(start === end ? x + 0.01 : x, y); // a dot: browsers do not draw a line of length 0
    this.context.stroke();
  }

  // What the network receives, in its order (row, column, channel); null for an empty canvas. As in
  // preprocess, it is (brightness − mean) / deviation, the same in all channels.
  pixels() {
    if (this.state.example) return this.state.example.pixels;
    const [height, width, channels] = this.data.image_shape;
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    const ink = new Float32Array(SIDE * SIDE);
    for (let k = 0; k < ink.length; k++) ink[k] = data[4 * k + 3] / 255; // the opacity
    const image = frame(ink, SIDE, height, width);
    if (image === null) return null;
    return Float32Array.from({ length: image.length * channels }, (_, k) => {
      return (image[Math.floor(k / channels)] - this.data.mean) / this.data.deviation;
    });
  }
}
