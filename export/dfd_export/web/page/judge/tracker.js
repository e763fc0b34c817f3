/** Tracks people by place, motion and appearance, as `faces/tracker.py` does. */

import { cropRegion, cut, sizeOf } from "./crop.js";
import { boxOverlap } from "./faces.js";
import { areaResized, lab, nearestResized } from "./pixels.js";

const { fround } = Math;

/**
 * Minimum-cost assignment of rows to columns (Hungarian algorithm by shortest augmenting paths,
 * Jonker and Volgenant, 1987); a pair that costs `unpaired` or more is not made.
 *
 * @returns The column of each row that has one, as a Map.
 */
export function assign(costs, columns, unpaired) {
  const rows = costs.length;
  const pairs = new Map();
  if (!rows || !columns) return pairs;
  const width = columns + rows;
  // Each row may also go to a column of its own, which stands for no partner.
  const cost = (row, column) => {
    if (column >= columns) return column - columns === row ? unpaired : Infinity;
    return costs[row][column] < unpaired ? costs[row][column] : Infinity;
  };
  const rowPrice = new Float64Array(rows + 1);
  const columnPrice = new Float64Array(width + 1);
  const rowOf = new Int32Array(width + 1).fill(rows);
  for (let row = 0; row < rows; row++) {
    rowOf[width] = row;
    let column = width;
    const shortest = new Float64Array(width).fill(Infinity);
    const before = new Int32Array(width).fill(width);
    const done = new Uint8Array(width + 1);
    while (rowOf[column] !== rows) {
      done[column] = 1;
      const here = rowOf[column];
      let next = -1;
      for (let j = 0; j < width; j++) {
        if (done[j]) continue;
        const reduced = cost(here, j) - rowPrice[here] - columnPrice[j];
        if (reduced < shortest[j]) [shortest[j], before[j]] = [reduced, column];
        if (next < 0 || shortest[j] < shortest[next]) next = j;
      }
      const step = shortest[next];
      for (let j = 0; j <= width; j++) {
        if (done[j]) {
          rowPrice[rowOf[j]] += step;
          columnPrice[j] -= step;
        } else if (j < width) shortest[j] -= step;
      }
      column = next;
    }
    while (column !== width) {
      rowOf[column] = rowOf[before[column]];
      column = before[column];
    }
  }
  for (let j = 0; j < columns; j++) if (rowOf[j] !== rows) pairs.set(rowOf[j], j);
  return pairs;
}

/** Appearance of a face: its colours, and the pattern of light and dark. */
class Appearance {
  constructor(image, box, rules) {
    const { side, patternSide } = rules;
    const square = cut(image, cropRegion(box, rules.scale));
    const small = areaResized(nearestResized(square, 2 * side, 2 * side), side, side);
    const colours = lab(small);
    this.colours = coloursOf(colours, rules);
    this.pattern = patternOf(colours, rules);
    this.limits = rules.otherPerson;
    this.patternSide = patternSide;
  }

  /** Squared Hellinger distance of the colours, in [0, 1]. */
  colourChange(other) {
    return Math.max(0, 1 - dot(this.colours, other.colours));
  }

  /** One minus the correlation of the patterns, in [0, 2]. */
  patternChange(other) {
    return Math.max(0, 1 - dot(this.pattern, other.pattern));
  }

  /** Whether this can hardly be the same person a moment later. */
  isOther(other) {
    const colours = this.colourChange(other);
    const pattern = this.patternChange(other);
    return this.limits.some(([c, p]) => colours > c && pattern > p);
  }
}

const dot = (a, b) => fround(a.reduce((sum, value, i) => sum + value * b[i], 0));

/** Square roots of the shares of the colours, smoothed over lightness. */
function coloursOf({ data }, { bins, chroma, side }) {
  const counts = new Float64Array(bins ** 3);
  const [low, high] = chroma;
  const place = (value) =>
    Math.floor(((Math.max(low, Math.min(high, value)) - low) * bins) / (high + 1 - low));
  for (let i = 0; i < data.length; i += 3) {
    const light = Math.floor((data[i] * bins) / 256);
    counts[(light * bins + place(data[i + 1])) * bins + place(data[i + 2])] += 1;
  }
  const shares = new Float32Array(counts.length);
  const row = bins * bins;
  for (let light = 0; light < bins; light++) {
    const above = Math.max(0, light - 1) * row;
    const below = Math.min(bins - 1, light + 1) * row;
    for (let j = 0; j < row; j++) {
      const smooth = 0.5 * counts[light * row + j] + 0.25 * (counts[above + j] + counts[below + j]);
      shares[light * row + j] = Math.sqrt(fround(smooth * fround(1 / side ** 2)));
    }
  }
  return shares;
}

/** Lightness on a coarse grid, without its mean, of length 1 or less where flat. */
function patternOf(colours, { patternSide, flat }) {
  const light = areaResized(colours, patternSide, patternSide);
  const pattern = Float32Array.from({ length: patternSide ** 2 }, (_, i) => light.data[3 * i]);
  const mean = pattern.reduce((sum, value) => sum + value, 0) / pattern.length;
  const centred = pattern.map((value) => value - mean);
  const length = Math.sqrt(dot(centred, centred)) + flat * patternSide;
  return centred.map((value) => value / length);
}

const size = (box) => Math.max(box[2] - box[0], box[3] - box[1], 1e-6);
const centreOf = (box) => [fround((box[0] + box[2]) / 2), fround((box[1] + box[3]) / 2)];

/** Distance between the centres, in sizes of the larger face. */
function distance(box, face) {
  const [x, y] = centreOf(box);
  const [faceX, faceY] = centreOf(face.box);
  return Math.hypot(faceX - x, faceY - y) / Math.max(sizeOf(face.box), size(box));
}

/** Joins detections into tracks; one instance a stream. */
export class Tracker {
  /** @param rules The `tracker` of `rules.json`. */
  constructor(rules) {
    this.rules = rules;
    this.tracks = [];
    this.lastNumber = 0;
  }

  /** Assigns each face of a frame to a track: `[{track, face}]`, boxes smoothed over time. */
  update(faces, time, image) {
    const { rules } = this;
    this.tracks = this.tracks.filter((track) => {
      const passed = time - track.time;
      return passed >= 0 && passed <= rules.maxGapS;
    });
    const looks = faces.map((face) => new Appearance(image, face.box, rules.appearance));
    const alone = faces.map((face) =>
      faces.every(
        (other) => other === face || boxOverlap(face.box, other.box) <= rules.maxSharedLook,
      ),
    );
    const expected = this.tracks.map((track) => this.expected(track, time));
    const costs = faces.map((face, row) =>
      this.tracks.map((track, column) => {
        const isOther = alone[row] && track.look !== null && looks[row].isOther(track.look);
        return isOther ? Infinity : this.cost(track, expected[column], face, looks[row]);
      }),
    );
    const pairs = assign(costs, this.tracks.length, rules.unpairedCost);
    const known = [...this.tracks];
    return faces.map((face, row) => {
      const track = pairs.has(row) ? known[pairs.get(row)] : null;
      return this.follow(track, face, looks[row], time, alone[row]);
    });
  }

  /** The box at constant velocity, which fades. */
  expected(track, time) {
    if (track.velocity === null) return track.box;
    const coasted = this.rules.coastS * (1 - Math.exp(-(time - track.time) / this.rules.coastS));
    return track.box.map((side, i) => fround(side + fround(track.velocity[i % 2] * coasted)));
  }

  cost(track, expected, face, look) {
    const { rules } = this;
    const growth = sizeOf(face.box) / size(track.box);
    if (!(growth >= 1 / rules.maxGrowth && growth <= rules.maxGrowth)) return Infinity;
    const apart = distance(expected, face);
    if (Math.min(apart, distance(track.box, face)) > rules.maxShift) return Infinity;
    const place = Math.min(apart, 1) + Math.abs(Math.log(growth)) - boxOverlap(expected, face.box);
    if (track.look === null) return place;
    const colours = rules.colourCost * look.colourChange(track.look);
    const pattern = rules.patternCost * Math.min(look.patternChange(track.look), 1);
    // Below the cost of being left alone, whatever the light does.
    return Math.min(place + colours + pattern, 0.99 * rules.unpairedCost);
  }

  follow(found, face, look, time, alone) {
    const centre = centreOf(face.box);
    if (found === null) {
      this.lastNumber += 1;
      const { box } = face;
      this.tracks.push({ number: this.lastNumber, box, centre, time, look, velocity: null });
      return { track: this.lastNumber, face };
    }
    const passed = time - found.time;
    if (passed > 0) {
      const newest = centre.map((value, i) => fround(fround(value - found.centre[i]) / passed));
      const old = found.velocity;
      const weight = this.rules.velocityWeight;
      found.velocity =
        old === null ? newest : newest.map((value, i) => fround(old[i] + weight * (value - old[i])));
    }
    found.box = this.smoothed(found.box, face.box);
    found.centre = centre;
    found.time = time;
    if (alone || found.look === null) found.look = look;
    return { track: found.number, face: { ...face, box: found.box } };
  }

  /** Averages a still face's box against detector jitter, and follows a moving one at once. */
  smoothed(old, box) {
    const moved = Math.max(...box.map((side, i) => Math.abs(fround(side - old[i]))));
    const motion = moved / Math.max(size(old), size(box));
    const weight = Math.min(1, this.rules.stillWeight + this.rules.motionGain * motion);
    return box.map((side, i) => fround(fround((1 - weight) * old[i]) + fround(weight * side)));
  }
}
