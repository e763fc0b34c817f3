/** Crop geometry and crop quality, as `faces/crop.py` has them. */

import {
  areaResized,
  grey,
  laplacianVariance,
  linearResized,
  nearestResized,
  rgb,
  rint,
} from "./pixels.js";

/** Longer side of a box `[x0, y0, x1, y1]`, in single precision as the runtime's. */
export const sizeOf = (box) => Math.max(Math.fround(box[2] - box[0]), Math.fround(box[3] - box[1]));

/** The square of whole pixels round a face's box: `{x0, y0, side}`. */
export function cropRegion(box, scale) {
  const side = Math.max(1, rint(sizeOf(box) * scale));
  const corner = (low, high) => rint(Math.fround(low + high) / 2 - side / 2);
  return { x0: corner(box[0], box[2]), y0: corner(box[1], box[3]), side };
}

/** The largest centred square of a frame, for models that judge whole frames. */
export function middleSquare({ width, height }) {
  const side = Math.min(width, height);
  const start = (length) => Math.floor(length / 2) - Math.floor(side / 2);
  return { x0: start(width), y0: start(height), side };
}

/** Cuts a rectangle out of a picture; what lies beyond it repeats its border. */
export function cutRectangle(image, x0, y0, width, height) {
  const { data, channels } = image;
  const out = new Uint8Array(width * height * 3);
  const columns = Int32Array.from(
    { length: width },
    (_, x) => Math.max(0, Math.min(image.width - 1, x0 + x)) * channels,
  );
  let to = 0;
  for (let y = 0; y < height; y++) {
    const row = Math.max(0, Math.min(image.height - 1, y0 + y)) * image.width * channels;
    for (let x = 0; x < width; x++, to += 3) {
      const from = row + columns[x];
      out[to] = data[from];
      out[to + 1] = data[from + 1];
      out[to + 2] = data[from + 2];
    }
  }
  return { data: out, width, height, channels: 3 };
}

/** Cuts a square at native size. */
export const cut = (image, { x0, y0, side }) => cutRectangle(image, x0, y0, side, side);

/** Cuts a square and resizes it for the frame model: a picture of `size` by `size` RGB pixels. */
export function extractCrop(image, region, size, resize) {
  const square = cut(image, region);
  if (region.side === size) return rgb(square);
  if (resize === "nearest") return nearestResized(square, size, size, { centres: true });
  const shrinks = resize === "area" && region.side > size;
  return shrinks ? areaResized(square, size, size) : linearResized(square, size, size);
}

/** Distance between the eyes over the face's size: about 0.4 from the front. */
function eyeDistance(face) {
  const [right, left] = face.keypoints;
  return Math.hypot(right[0] - left[0], right[1] - left[1]) / Math.max(sizeOf(face.box), 1e-6);
}

/**
 * Whether a face is judged, and if not, why: `{judged, reason, detail}`.
 *
 * @param limits The `quality` of `rules.json`.
 */
export function assess(face, crop, limits) {
  const refusal = (reason, detail = Infinity) => ({ judged: false, reason, detail });
  if (sizeOf(face.box) < limits.minFacePx) return refusal("too small");
  const luma = grey(crop);
  const sum = luma.data.reduce((total, value) => total + value, 0);
  if (sum / luma.data.length < limits.minLuma) return refusal("dark");
  if (eyeDistance(face) < limits.minEyeDistance) return refusal("turned away");
  const quarter = Math.floor(luma.height / 4);
  const end = luma.height - quarter;
  const detail = laplacianVariance(luma, quarter, quarter, end, end);
  if (detail < limits.minDetail) return refusal("blurred", detail);
  return { judged: true, reason: null, detail };
}
