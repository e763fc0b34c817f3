/**
 * Pictures: resizing, grey, Lab and blur, in the whole numbers that OpenCV computes with.
 *
 * The runtime resizes with OpenCV, and a model's score follows the last bit of its crop. So these
 * functions keep OpenCV's formulas, its fixed point and its rounding to the nearest even number.
 *
 * A picture is `{data, width, height, channels}`, rows from the top, channels in the order R, G, B
 * and perhaps A, which is ignored.
 */

/** Rounds to the nearest whole number, halves to the even one, as C's `rint` and Python's `round`. */
export function rint(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

const byte = (value) => Math.max(0, Math.min(255, rint(value)));

/** A picture of RGBA bytes, such as `ImageData`. */
export function picture({ data, width, height }, channels = 4) {
  return { data, width, height, channels };
}

/** A picture without pixels yet; always of three channels. */
function blank(width, height) {
  return { data: new Uint8Array(width * height * 3), width, height, channels: 3 };
}

/** The three colours of a picture, in an array of their own. */
export function rgb(image) {
  if (image.channels === 3) return image;
  const out = blank(image.width, image.height);
  for (let from = 0, to = 0; to < out.data.length; from += 4, to += 3) {
    out.data[to] = image.data[from];
    out.data[to + 1] = image.data[from + 1];
    out.data[to + 2] = image.data[from + 2];
  }
  return out;
}

/** The weights with which source pixels enter each target pixel: `computeResizeAreaTab`. */
function areaWeights(source, target) {
  const scale = 1 / (target / source);
  const table = [];
  for (let to = 0; to < target; to++) {
    const start = to * scale;
    const end = start + scale;
    const width = Math.min(scale, source - start);
    const last = Math.min(Math.floor(end), source - 1);
    const first = Math.min(Math.ceil(start), last);
    const entry = [];
    if (first - start > 1e-3) entry.push(first - 1, Math.fround((first - start) / width));
    for (let from = first; from < last; from++) entry.push(from, Math.fround(1 / width));
    if (end - last > 1e-3) {
      entry.push(last, Math.fround(Math.min(Math.min(end - last, 1), width) / width));
    }
    table.push(entry);
  }
  return table;
}

/** Shrinks by whole numbers: means of blocks. */
function shrunkByBlocks(image, width, height, across, down) {
  const out = blank(width, height);
  const { data, channels } = image;
  const row = image.width * channels;
  const share = Math.fround(1 / (across * down));
  const pairs = across === 2 && down === 2;
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const corner = y * down * row + x * across * channels;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let dy = 0; dy < down; dy++) {
          let from = corner + dy * row + channel;
          for (let dx = 0; dx < across; dx++, from += channels) sum += data[from];
        }
        out.data[to++] = pairs ? (sum + 2) >> 2 : byte(Math.fround(sum * share));
      }
    }
  }
  return out;
}

/** OpenCV's `INTER_AREA` for a target that is no larger: each pixel the mean of those it covers. */
export function areaResized(image, width, height) {
  const across = 1 / (width / image.width);
  const down = 1 / (height / image.height);
  const whole = (scale) => Math.abs(scale - Math.round(scale)) < Number.EPSILON;
  if (whole(across) && whole(down)) {
    return shrunkByBlocks(image, width, height, Math.round(across), Math.round(down));
  }
  const out = blank(width, height);
  const columns = areaWeights(image.width, width);
  const rows = areaWeights(image.height, height);
  const { data, channels } = image;
  const line = new Float32Array(width * 3);
  const sums = new Float32Array(width * 3);
  const stride = image.width * channels;
  for (let y = 0; y < height; y++) {
    sums.fill(0);
    const entry = rows[y];
    for (let i = 0; i < entry.length; i += 2) {
      const start = entry[i] * stride;
      line.fill(0);
      for (let x = 0; x < width; x++) {
        const weights = columns[x];
        const at = x * 3;
        for (let j = 0; j < weights.length; j += 2) {
          const from = start + weights[j] * channels;
          const weight = weights[j + 1];
          line[at] += Math.fround(data[from] * weight);
          line[at + 1] += Math.fround(data[from + 1] * weight);
          line[at + 2] += Math.fround(data[from + 2] * weight);
        }
      }
      const weight = entry[i + 1];
      for (let j = 0; j < sums.length; j++) sums[j] += Math.fround(line[j] * weight);
    }
    for (let j = 0; j < sums.length; j++) out.data[y * sums.length + j] = byte(sums[j]);
  }
  return out;
}

/** Places and weights (in 1 / 2048) of the two source pixels of each target pixel. */
function linearWeights(source, target) {
  const scale = 1 / (target / source);
  const places = new Int32Array(target);
  const next = new Int32Array(target);
  const first = new Int32Array(target);
  const second = new Int32Array(target);
  for (let to = 0; to < target; to++) {
    let share = Math.fround((to + 0.5) * scale - 0.5);
    let place = Math.floor(share);
    share = Math.fround(share - place);
    if (place < 0) [place, share] = [0, 0];
    if (place >= source - 1) [place, share] = [source - 1, 0];
    places[to] = place;
    next[to] = Math.min(place + 1, source - 1);
    first[to] = rint(Math.fround(1 - share) * 2048);
    second[to] = rint(share * 2048);
  }
  return { places, next, first, second };
}

/** OpenCV's `INTER_LINEAR` of bytes, in its fixed point. */
export function linearResized(image, width, height) {
  const out = blank(width, height);
  const { data, channels } = image;
  const across = linearWeights(image.width, width);
  const down = linearWeights(image.height, height);
  const stride = image.width * channels;
  const mixed = (row, x, channel) =>
    data[row + across.places[x] * channels + channel] * across.first[x] +
    data[row + across.next[x] * channels + channel] * across.second[x];
  let to = 0;
  for (let y = 0; y < height; y++) {
    const upper = down.places[y] * stride;
    const lower = down.next[y] * stride;
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        const above = (down.first[y] * (mixed(upper, x, channel) >> 4)) >> 16;
        const below = (down.second[y] * (mixed(lower, x, channel) >> 4)) >> 16;
        out.data[to++] = Math.max(0, Math.min(255, (above + below + 2) >> 2));
      }
    }
  }
  return out;
}

/** The nearest pixels: `INTER_NEAREST` (upper left), or `INTER_NEAREST_EXACT` (centres). */
export function nearestResized(image, width, height, { centres = false } = {}) {
  const out = blank(width, height);
  const { data, channels } = image;
  const shift = centres ? 0.5 : 0;
  const place = (to, source, target) =>
    Math.min(Math.floor((to + shift) * (1 / (target / source))), source - 1);
  let to = 0;
  for (let y = 0; y < height; y++) {
    const row = place(y, image.height, height) * image.width;
    for (let x = 0; x < width; x++) {
      const from = (row + place(x, image.width, width)) * channels;
      for (let channel = 0; channel < 3; channel++) out.data[to++] = data[from + channel];
    }
  }
  return out;
}

/** Resizes as `sources/frames.py` does: large pictures are halved first. */
export function resized(image, width, height, halvedFrom) {
  let left = image;
  const times = () => Math.min(Math.floor(left.width / width), Math.floor(left.height / height));
  while (times() >= halvedFrom) {
    left = areaResized(left, Math.floor(left.width / 2), Math.floor(left.height / 2));
  }
  if (left.width === width && left.height === height) return rgb(left);
  const shrinks = width < left.width && height <= left.height;
  return shrinks ? areaResized(left, width, height) : linearResized(left, width, height);
}

/** Brightness, `{data, width, height}`: `COLOR_RGB2GRAY`. */
export function grey({ data, width, height, channels }) {
  const out = new Uint8Array(width * height);
  for (let to = 0, from = 0; to < out.length; to++, from += channels) {
    out[to] =
      (data[from] * 9798 + data[from + 1] * 19235 + data[from + 2] * 3735 + 16384) >> 15;
  }
  return { data: out, width, height };
}

/** Shrinks a plane of bytes so that its longer side has at most `side` pixels. */
export function shrunkPlane(plane, side) {
  const scale = Math.min(1, side / Math.max(plane.width, plane.height));
  if (scale >= 1) return plane;
  const width = Math.max(1, rint(plane.width * scale));
  const height = Math.max(1, rint(plane.height * scale));
  const columns = areaWeights(plane.width, width);
  const rows = areaWeights(plane.height, height);
  const out = new Uint8Array(width * height);
  const sums = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    sums.fill(0);
    for (let i = 0; i < rows[y].length; i += 2) {
      const start = rows[y][i] * plane.width;
      for (let x = 0; x < width; x++) {
        const weights = columns[x];
        let sum = 0;
        for (let j = 0; j < weights.length; j += 2) {
          sum += plane.data[start + weights[j]] * weights[j + 1];
        }
        sums[x] += sum * rows[y][i + 1];
      }
    }
    for (let x = 0; x < width; x++) out[y * width + x] = byte(sums[x]);
  }
  return { data: out, width, height };
}

/** The place inside 0 to length - 1 that stands for one outside: `BORDER_REFLECT_101`. */
const reflected = (place, length) => {
  if (length === 1) return 0;
  const inside = Math.abs(place) % (2 * (length - 1));
  return inside < length ? inside : 2 * (length - 1) - inside;
};

/** Sums over squares of `side` pixels round each pixel, borders reflected. */
export function boxSums(data, width, height, side) {
  const reach = side >> 1;
  const Sums = data instanceof Float32Array ? Float64Array : Int32Array;
  const across = new Sums(width * height);
  const line = new Sums(width + 2 * reach);
  for (let y = 0; y < height; y++) {
    const row = y * width;
    for (let x = 0; x < width; x++) line[x + reach] = data[row + x];
    for (let d = 1; d <= reach; d++) {
      line[reach - d] = data[row + reflected(-d, width)];
      line[reach + width - 1 + d] = data[row + reflected(width - 1 + d, width)];
    }
    let sum = 0;
    for (let x = 0; x < side - 1; x++) sum += line[x];
    for (let x = 0; x < width; x++) {
      sum += line[x + side - 1];
      across[row + x] = sum;
      sum -= line[x];
    }
  }
  const sums = new Sums(width * height);
  const column = new Sums(width);
  for (let d = -reach; d <= reach; d++) {
    const row = reflected(d, height) * width;
    for (let x = 0; x < width; x++) column[x] += across[row + x];
  }
  for (let y = 0; y < height; y++) {
    const row = y * width;
    const enters = reflected(y + 1 + reach, height) * width;
    const leaves = reflected(y - reach, height) * width;
    for (let x = 0; x < width; x++) {
      sums[row + x] = column[x];
      column[x] += across[enters + x] - across[leaves + x];
    }
  }
  return sums;
}

/** Variance of the Laplacian of a plane's rectangle, its own borders reflected. */
export function laplacianVariance({ data, width }, x0, y0, x1, y1) {
  const columns = x1 - x0;
  const rows = y1 - y0;
  const at = (x, y) => data[(y0 + reflected(y, rows)) * width + x0 + reflected(x, columns)];
  let sum = 0;
  let squares = 0;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const value = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4 * at(x, y);
      sum += value;
      squares += value * value;
    }
  }
  const count = rows * columns;
  return squares / count - (sum / count) ** 2;
}

const LAB_BITS = 15;
const XYZ_BITS = 12;
const GAMMA_BITS = 3;
const WHITE = [0.950456, 1, 1.088754];
const XYZ = [
  [0.412453, 0.35758, 0.180423],
  [0.212671, 0.71516, 0.072169],
  [0.019334, 0.119193, 0.950227],
];
let labTables = null;

function tablesOfLab() {
  const curve = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const gamma = Int32Array.from({ length: 256 }, (_, i) =>
    rint(255 * (1 << GAMMA_BITS) * curve(i / 255)),
  );
  const root = Int32Array.from({ length: 384 << GAMMA_BITS }, (_, i) => {
    const x = i / (255 * (1 << GAMMA_BITS));
    const value = x < 216 / 24389 ? (x * 841) / 108 + 16 / 116 : Math.cbrt(x);
    return Math.min(65535, rint((1 << LAB_BITS) * value));
  });
  const shares = XYZ.map((row, i) => row.map((share) => rint(((1 << XYZ_BITS) * share) / WHITE[i])));
  return { gamma, root, shares };
}

/** Lab bytes of a picture of three channels: `COLOR_RGB2Lab`. */
export function lab({ data, width, height }) {
  labTables ??= tablesOfLab();
  const { gamma, root, shares } = labTables;
  const scaled = (value, bits) => (value + (1 << (bits - 1))) >> bits;
  const clipped = (value) => Math.max(0, Math.min(255, value));
  const light = Math.trunc((116 * 255 + 50) / 100);
  const dark = -Math.trunc((16 * 255 * (1 << LAB_BITS) + 50) / 100);
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += 3) {
    const [r, g, b] = [gamma[data[i]], gamma[data[i + 1]], gamma[data[i + 2]]];
    const [x, y, z] = shares.map((row) => root[scaled(r * row[0] + g * row[1] + b * row[2], XYZ_BITS)]);
    out[i] = clipped(scaled(light * y + dark, LAB_BITS));
    out[i + 1] = clipped(scaled(500 * (x - y) + (128 << LAB_BITS), LAB_BITS));
    out[i + 2] = clipped(scaled(200 * (y - z) + (128 << LAB_BITS), LAB_BITS));
  }
  return { data: out, width, height, channels: 3 };
}
