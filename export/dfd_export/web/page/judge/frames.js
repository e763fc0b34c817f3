/** Pixels and brightness of the frames that a browser gives: `VideoFrame`s and bitmaps. */

import { picture } from "./pixels.js";

const PLANAR = new Set(["I420", "I420A", "I422", "I422A", "I444", "I444A", "NV12", "NV12A"]);
const HDR = new Set(["pq", "hlg"]);

let canvas = null;
let context = null;

/** The colours of a frame, upright, with square pixels. */
export function pixelsOf(frame) {
  const width = frame.displayWidth ?? frame.width;
  const height = frame.displayHeight ?? frame.height;
  if (canvas?.width !== width || canvas?.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  }
  context.drawImage(frame, 0, 0, width, height);
  return picture(context.getImageData(0, 0, width, height));
}

/** Whether a frame's brightness is on the scale of HDR, on which nothing is measured. */
export const isHdr = (frame) => HDR.has(frame.colorSpace?.transfer);

/**
 * The decoder's own brightness in full range, or null where the browser does not give it.
 *
 * Signals are measured on this plane: converted to colours and back, noise of the colours gets in.
 */
export async function lumaOf(frame) {
  const { visibleRect, format, colorSpace } = frame;
  if (!PLANAR.has(format)) return null;
  const { width, height } = visibleRect;
  const isUpright = !frame.rotation && !frame.flip;
  if (!isUpright || width !== frame.displayWidth || height !== frame.displayHeight) return null;
  const bytes = new Uint8Array(frame.allocationSize());
  const [{ offset, stride }] = await frame.copyTo(bytes);
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const start = offset + y * stride;
    data.set(bytes.subarray(start, start + width), y * width);
  }
  if (!colorSpace.fullRange) for (let i = 0; i < data.length; i++) data[i] = FULL_RANGE[data[i]];
  return { data, width, height };
}

/** Brightness from 16 to 235 as one from 0 to 255, in FFmpeg's whole numbers. */
const FULL_RANGE = Uint8Array.from({ length: 256 }, (_, luma) => {
  const scaled = (Math.min(luma << 7, 30189) * 19077 - 39057361) >> 14;
  return Math.max(0, Math.min(255, (scaled + 64) >> 7));
});
