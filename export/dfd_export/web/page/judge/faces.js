/**
 * Face detection with BlazeFace, full-range model, as `faces/detector.py` has it.
 *
 * A face is `{box: [x0, y0, x1, y1], keypoints: [[x, y] * 6], score}` in pixels of the frame.
 */

import { cutRectangle, sizeOf } from "./crop.js";
import { resized, rint } from "./pixels.js";

const { fround } = Math;
/** Pixels are scaled to [-1, 1]. */
const UNIT = fround(1 / 127.5);

/** Intersection over union of two boxes, in [0, 1]. */
export function boxOverlap(first, second) {
  const width = Math.min(first[2], second[2]) - Math.max(first[0], second[0]);
  const height = Math.min(first[3], second[3]) - Math.max(first[1], second[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(first) + area(second) - width * height);
}

/** Intersection of two boxes over the area of the smaller one. */
function sharedArea(first, second) {
  const width = Math.max(0, Math.min(first[2], second[2]) - Math.max(first[0], second[0]));
  const height = Math.max(0, Math.min(first[3], second[3]) - Math.max(first[1], second[1]));
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / Math.max(Math.min(area(first), area(second)), 1e-6);
}

const byScore = (faces) => [...faces].sort((a, b) => b.score - a.score);

/** Merges overlapping detections into score-weighted means. */
function merged(faces, maxOverlap) {
  const found = [];
  let left = byScore(faces);
  while (left.length) {
    const [best] = left;
    const overlaps = left.map((face) => boxOverlap(best.box, face.box));
    let cluster = left.filter((_, i) => overlaps[i] > maxOverlap);
    if (!cluster.length) cluster = [best];
    left = left.filter((_, i) => i > 0 && overlaps[i] <= maxOverlap);
    const total = cluster.reduce((sum, face) => sum + face.score, 0);
    const mean = (value) =>
      fround(cluster.reduce((sum, face) => sum + (face.score / total) * value(face), 0));
    found.push({
      box: best.box.map((_, i) => mean((face) => face.box[i])),
      keypoints: best.keypoints.map((_, i) =>
        [0, 1].map((axis) => mean((face) => face.keypoints[i][axis])),
      ),
      score: best.score,
    });
  }
  return found;
}

function shifted(face, x, y) {
  return {
    box: face.box.map((side, i) => fround(side + (i % 2 ? y : x))),
    keypoints: face.keypoints.map(([px, py]) => [fround(px + x), fround(py + y)]),
    score: face.score,
  };
}

/** Finds faces; the model runs through `run(square)`, float32 [1, size, size, 3] in [-1, 1]. */
export class FaceDetector {
  /**
   * @param run Returns `{raw, logits}`, Float32Arrays, of the model's input.
   * @param options The manifest's `face.options`.
   * @param rules The `detector` of `rules.json`.
   */
  constructor(run, options, rules) {
    this.run = run;
    this.options = options;
    this.rules = rules;
  }

  /** The faces of a frame, the largest first; `thorough` searches as long as a still is worth. */
  async detect(image, { thorough = false } = {}) {
    const { rules, options } = this;
    let faces = await this.detectOnce(image);
    if (!faces.length) faces = await this.detectOnce(image, rules.borderedShare);
    const longer = Math.max(image.width, image.height);
    if (!faces.length && longer >= options.tile_min_side) {
      const found = [];
      for (const [x, y, side] of this.tiles(image.width, image.height)) {
        found.push(...(await this.detectIn(image, x, y, side)));
      }
      faces = merged(found, options.max_overlap);
    }
    const share = Math.max(0, ...faces.map((face) => sizeOf(face.box))) / longer;
    const small = share < rules.smallShare;
    const crowd = small && faces.length >= rules.crowd;
    if (longer > rules.fineTile && (crowd || (thorough && share < rules.largeShare))) {
      const most = thorough && small ? rules.maxFineTiles : rules.maxCrowdTiles;
      faces = await this.detectSmall(image, faces, most);
    }
    return faces.sort((a, b) => sizeOf(b.box) - sizeOf(a.box)).slice(0, rules.maxFaces);
  }

  /** Searches a frame whose longer side takes up a share of the model's input. */
  async detectOnce(image, share = 1) {
    const { inputSize, grid, logitLimit, halvedFrom } = this.rules;
    const scale = (share * inputSize) / Math.max(image.width, image.height);
    const width = Math.max(1, rint(image.width * scale));
    const height = Math.max(1, rint(image.height * scale));
    const small = resized(image, width, height, halvedFrom);
    const left = Math.floor((inputSize - width) / 2);
    const top = Math.floor((inputSize - height) / 2);
    const square = new Float32Array(inputSize * inputSize * 3).fill(-1);
    for (let y = 0, from = 0; y < height; y++) {
      let to = ((top + y) * inputSize + left) * 3;
      for (let i = 0; i < width * 3; i++) square[to++] = fround(small.data[from++] * UNIT) - 1;
    }
    const { raw, logits } = await this.run(square);
    const faces = [];
    const [offsets, step] = [[left, top], inputSize / grid];
    const [factor, doubled] = [fround(scale), fround(2 * scale)];
    for (let cell = 0; cell < grid * grid; cell++) {
      const logit = Math.max(-logitLimit, Math.min(logitLimit, logits[cell]));
      const score = fround(1 / (1 + Math.exp(-logit)));
      if (!(score >= this.options.min_score)) continue;
      const anchor = [((cell % grid) + 0.5) * step, (Math.floor(cell / grid) + 0.5) * step];
      const at = (pair, axis) => raw[cell * 16 + pair * 2 + axis];
      const place = (pair, axis) =>
        fround(fround(fround(at(pair, axis) + anchor[axis]) - offsets[axis]) / factor);
      const half = (axis) => fround(at(1, axis) / doubled);
      const edge = (axis, sign) => fround(place(0, axis) + sign * half(axis));
      faces.push({
        box: [edge(0, -1), edge(1, -1), edge(0, 1), edge(1, 1)],
        keypoints: [2, 3, 4, 5, 6, 7].map((pair) => [place(pair, 0), place(pair, 1)]),
        score,
      });
    }
    return merged(faces, this.options.max_overlap);
  }

  /** Searches a square tile, which may reach beyond the frame and is cut there. */
  async detectIn(image, x, y, side) {
    const width = Math.min(side, image.width - x);
    const height = Math.min(side, image.height - y);
    const faces = await this.detectOnce(cutRectangle(image, x, y, width, height));
    return faces.map((face) => shifted(face, x, y));
  }

  /** Adds the faces that are found in tiles, without those that a tile's edge may cut. */
  async detectSmall(image, known, mostTiles) {
    const found = [...known];
    for (const [x, y, side] of this.fineTiles(image.width, image.height, mostTiles)) {
      for (const face of await this.detectIn(image, x, y, side)) {
        const [x0, y0, x1, y1] = face.box;
        const isCut =
          (x > 0 && x0 < x) ||
          (y > 0 && y0 < y) ||
          (x + side < image.width && x1 > x + side) ||
          (y + side < image.height && y1 > y + side);
        if (!isCut) found.push(face);
      }
    }
    const kept = [];
    for (const face of byScore(found)) {
      const isNew = kept.every((other) => sharedArea(face.box, other.box) < this.rules.sameShare);
      if (isNew) kept.push(face);
    }
    return kept;
  }

  /** Square tiles `[x, y, side]` that cover a frame with overlap. */
  tiles(width, height) {
    let side = Math.max(1, Math.trunc(Math.min(width, height) * this.rules.tileShare));
    const count = () => this.starts(width, side).length * this.starts(height, side).length;
    while (count() > this.rules.maxTiles) side = Math.ceil(side * 1.1);
    return this.grid(width, height, side);
  }

  /** Square tiles of several sizes, each half the one before. */
  fineTiles(width, height, most) {
    for (let smallest = this.rules.fineTile; ; smallest *= 1.1) {
      const sides = [Math.trunc(smallest)];
      while (2 * sides.at(-1) < Math.max(width, height)) sides.push(2 * sides.at(-1));
      const tiles = sides.reverse().flatMap((side) => this.grid(width, height, side));
      if (tiles.length <= most) return tiles;
    }
  }

  grid(width, height, side) {
    return this.starts(height, side).flatMap((y) =>
      this.starts(width, side).map((x) => [x, y, side]),
    );
  }

  starts(length, side) {
    if (side >= length) return [0];
    const steps = Math.ceil((length - side) / (side * this.rules.tileStep));
    const count = Math.max(2, steps + 1);
    return Array.from({ length: count }, (_, i) =>
      Math.trunc(i === count - 1 ? length - side : i * ((length - side) / (count - 1))),
    );
  }
}
