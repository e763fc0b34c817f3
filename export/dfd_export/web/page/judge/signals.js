/**
 * Measurements of consecutive frames round a face, as `faces/signals.py` takes them.
 *
 * A burst is three planes `{data, width, height}` of luma, the oldest first; `docs/signals.md`
 * explains the measurements.
 */

import { boxSums, rint } from "./pixels.js";

const { fround } = Math;

/** A part of a window: a rectangle of cells, and which of them belong to it. */
class Region {
  constructor(cells, columns) {
    this.cells = cells;
    this.columns = columns;
  }

  get count() {
    return this.cells.reduce((sum, cell) => sum + cell, 0);
  }

  mean(map) {
    let sum = 0;
    let count = 0;
    for (let i = 0; i < map.length; i++) {
      if (!this.cells[i]) continue;
      sum += map[i];
      count += 1;
    }
    return count ? sum / count : 0;
  }

  /** The half of the region in which least moves between two frames. */
  calm(pair) {
    const values = pair.calmness.filter((_, i) => this.cells[i]).sort();
    const low = values[(values.length - 1) >> 1];
    const middle = fround(fround(low + values[values.length >> 1]) / 2);
    const limit = fround(middle + fround(1e-6));
    return new Region(
      this.cells.map((cell, i) => (cell && pair.calmness[i] <= limit ? 1 : 0)),
      this.columns,
    );
  }

  /** Standard deviation of a frame's pixels in the region's rectangle. */
  deviation(frame, cell) {
    let [x0, x1, y0, y1] = [Infinity, 0, Infinity, 0];
    this.cells.forEach((inside, i) => {
      if (!inside) return;
      const [x, y] = [i % this.columns, Math.floor(i / this.columns)];
      [x0, x1, y0, y1] = [Math.min(x0, x), Math.max(x1, x), Math.min(y0, y), Math.max(y1, y)];
    });
    let [sum, squares, count] = [0, 0, 0];
    for (let y = y0 * cell; y < (y1 + 1) * cell; y++) {
      for (let x = x0 * cell; x < (x1 + 1) * cell; x++) {
        const value = frame.data[y * frame.width + x];
        sum += value;
        squares += value * value;
        count += 1;
      }
    }
    return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
  }
}

/** The part of the frames round a face that is measured, a whole number of cells. */
class Window {
  /** The window round a face, all in pixels of the plane; null where it is too small. */
  static around({ width, height }, box, points, rules) {
    if (![...box, ...points.flat()].every(Number.isFinite)) return null;
    const face = box[2] - box[0];
    const cell = Math.max(2, rint(face / rules.cellsPerFace));
    if (face < rules.leastFace * cell) return null;
    const [sides, up, down] = rules.window.map((share) => share * face);
    const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const [x0, x1] = [Math.max(0, Math.trunc(x - sides)), Math.min(width, Math.trunc(x + sides))];
    const [y0, y1] = [Math.max(0, Math.trunc(y - up)), Math.min(height, Math.trunc(y + down))];
    const columns = Math.floor((x1 - x0) / cell);
    const rows = Math.floor((y1 - y0) / cell);
    if (Math.min(columns, rows) < rules.leastFace) return null;
    const found = new Window();
    const inCells = (px, py) => [(px - x0) / cell, (py - y0) / cell];
    return Object.assign(found, {
      x: x0,
      y: y0,
      rows,
      columns,
      cell,
      rules,
      box: [...inCells(box[0], box[1]), ...inCells(box[2], box[3])],
      points: points.map(([px, py]) => inCells(px, py)),
    });
  }

  /** The window of a plane. */
  cut(plane) {
    const width = this.columns * this.cell;
    const height = this.rows * this.cell;
    const data = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      const start = (this.y + y) * plane.width + this.x;
      data.set(plane.data.subarray(start, start + width), y * width);
    }
    return { data, width, height };
  }

  /** The regions in their order; null where one has next to no cells. */
  regions() {
    const { box, points, rules } = this;
    const width = box[2] - box[0];
    const middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const [rightEye, leftEye, , mouthCentre] = points;
    const face = this.ellipse(middle, 0.45 * width, 0.55 * width);
    const [right, left] = [rightEye, leftEye].map((eye) =>
      this.ellipse(eye, 0.16 * width, 0.11 * width),
    );
    const eyes = right.map((cell, i) => cell | left[i]);
    const mouth = this.ellipse(mouthCentre, 0.24 * width, 0.16 * width);
    const inner = this.ellipse(middle, 0.52 * width, 0.64 * width);
    const ring = this.ellipse(middle, 0.75 * width, 0.9 * width).map((cell, i) => cell & ~inner[i]);
    const head = this.ellipse(middle, 0.85 * width, 1.1 * width);
    const shoulders = middle[1] + 0.8 * width;
    let background = head.map((cell, i) =>
      !cell && Math.floor(i / this.columns) + 0.5 < shoulders ? 1 : 0,
    );
    const skin = face.map((cell, i) => cell & ~eyes[i] & ~mouth[i]);
    const region = (cells) => new Region(cells, this.columns);
    // Where the face fills the picture, the ring stands for the background.
    if (region(background).count < 4 * rules.leastCells) background = ring;
    const found = [eyes, mouth, skin, ring, background, face].map(region);
    return found.some(({ count }) => count < rules.leastCells) ? null : found;
  }

  ellipse([x, y], a, b) {
    const cells = new Uint8Array(this.rows * this.columns);
    for (let row = 0; row < this.rows; row++) {
      const down = ((row + 0.5 - y) / b) ** 2;
      for (let column = 0; column < this.columns; column++) {
        const across = ((column + 0.5 - x) / a) ** 2;
        cells[row * this.columns + column] = across + down < 1 ? 1 : 0;
      }
    }
    return cells;
  }
}

const POSITIVE = 8192;

/** A whole number divided by an odd one and rounded; quicker than `Math.round` of the quotient. */
const divided = (sum, area) => (((sum + (area >> 1) + POSITIVE * area) / area) | 0) - POSITIVE;

/** Means of a map of whole numbers over cells. */
function cellMeans(values, width, height, cell) {
  const columns = width / cell;
  const sums = new Float64Array(columns * (height / cell));
  for (let y = 0, i = 0; y < height; y++) {
    const row = Math.floor(y / cell) * columns;
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let j = 0; j < cell; j++, i++) sum += values[i];
      sums[row + column] += sum;
    }
  }
  return Float32Array.from(sums, (sum) => sum / (cell * cell));
}

/** Two consecutive frames, and what they have between them. */
class Pair {
  constructor(before, after, cell, rules) {
    const { width, height } = after;
    const pixels = width * height;
    const scaled = new Int16Array(pixels);
    const apart = new Uint8Array(pixels);
    const moving = new Uint8Array(pixels);
    const { scale, moving: limit } = rules;
    let alike = 0;
    for (let i = 0; i < pixels; i++) {
      const difference = after.data[i] - before.data[i];
      scaled[i] = difference * scale;
      apart[i] = difference < 0 ? -difference : difference;
      moving[i] = apart[i] > limit ? 1 : 0;
      alike += difference === 0 ? 1 : 0;
    }
    const sums = boxSums(scaled, width, height, 3);
    const noise = new Int16Array(pixels);
    this.residual = new Int16Array(pixels);
    for (let i = 0; i < pixels; i++) {
      const rest = scaled[i] - divided(sums[i], 9);
      this.residual[i] = rest;
      noise[i] = rest < 0 ? -rest : rest;
    }
    this.width = width;
    this.cell = cell;
    this.change = cellMeans(apart, width, height, cell);
    this.moving = cellMeans(moving, width, height, cell);
    this.noise = cellMeans(noise, width, height, cell).map((value) => value / rules.scale);
    const [columns, rows] = [width / cell, height / cell];
    this.calmness = Float32Array.from(boxSums(this.change, columns, rows, 3), (sum) => sum / 9);
    this.repeated = alike / pixels >= rules.repeated;
  }

  /** Logarithms of noise and change of a region, and its share of moving pixels. */
  levels(region, floor) {
    return [
      Math.log(region.calm(this).mean(this.noise) + floor),
      Math.log(region.mean(this.change) + floor),
      region.mean(this.moving),
    ];
  }
}

/** Mean absolute high-pass of a frame at two scales, over cells. */
function sharpness({ data, width, height }, cell) {
  return [3, 7].map((side) => {
    const sums = boxSums(data, width, height, side);
    const area = side * side;
    const apart = new Uint8Array(data.length);
    for (let i = 0; i < apart.length; i++) apart[i] = Math.abs(data[i] - divided(sums[i], area));
    return cellMeans(apart, width, height, cell);
  });
}

/** Correlation of one difference's high-pass with the next one's. */
function correlation([first, second], region) {
  if (first.repeated || second.repeated) return 0;
  const calm = region.calm(first);
  const { cell, width } = first;
  let [ofFirst, ofSecond, ofBoth, count] = [0, 0, 0, 0];
  for (let i = 0; i < calm.cells.length; i++) {
    if (!calm.cells[i]) continue;
    const corner = (Math.floor(i / calm.columns) * width + (i % calm.columns)) * cell;
    for (let y = 0; y < cell; y++) {
      for (let at = corner + y * width, end = at + cell; at < end; at++) {
        const a = first.residual[at];
        const b = second.residual[at];
        ofFirst += a * a;
        ofSecond += b * b;
        ofBoth += a * b;
      }
    }
    count += cell * cell;
  }
  const power = Math.sqrt(ofFirst * ofSecond);
  // Less than 1 / 16 grey level is rounding.
  return power > count ? ofBoth / power : 0;
}

/**
 * Measures a burst round one face.
 *
 * @param burst Three planes of luma.
 * @param box The face in the due frame, pixels of the image.
 * @param keypoints Its key points.
 * @param image Width and height of the image that box and key points belong to.
 * @param rules The `signals` of `rules.json`.
 * @returns Float32Array in the order of the manifest's names, or null where there is nothing to
 *     measure: one picture repeated, or a face too small or too near the border.
 */
export function measure(burst, box, keypoints, image, rules) {
  const due = burst.at(-1);
  const scale = [
    due.width / image.width,
    due.height / image.height,
  ];
  const window = Window.around(
    due,
    box.map((side, i) => side * scale[i % 2]),
    keypoints.map(([x, y]) => [x * scale[0], y * scale[1]]),
    rules,
  );
  const regions = window?.regions();
  if (!regions) return null;
  const shown = burst.map((plane) => window.cut(plane));
  const pairs = shown
    .slice(1)
    .map((after, i) => new Pair(shown[i], after, window.cell, rules));
  const fresh = pairs.filter((pair) => !pair.repeated);
  if (!fresh.length) return null;
  const details = sharpness(shown.at(-1), window.cell);
  const values = [];
  for (const region of regions) {
    const levels = fresh.map((pair) => pair.levels(region, rules.noiseFloor));
    for (let i = 0; i < 3; i++) {
      values.push(levels.reduce((sum, level) => sum + level[i], 0) / fresh.length);
    }
    values.push(...details.map((map) => Math.log(region.mean(map) + rules.detailFloor)));
  }
  const [background, face] = regions.slice(4);
  values.push(correlation(pairs, face), correlation(pairs, background));
  const contrast = face.deviation(shown.at(-1), window.cell);
  values.push(Math.log(contrast + rules.contrastFloor));
  return Float32Array.from(values);
}
