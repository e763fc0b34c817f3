/** Judges frames in a thread of its own, so that the page stays quick. */

import { extractCrop } from "./judge/crop.js";
import { Models } from "./judge/engine.js";
import { isHdr, lumaOf, pixelsOf } from "./judge/frames.js";
import { Stream } from "./judge/stream.js";

let models = null;
let config = null;
let stream = null;
let highest = new Map();
let queue = Promise.resolve();

const handlers = {
  async load({ base, gpu }) {
    const response = await fetch(new URL("config.json", base), { cache: "no-cache" });
    config = await response.json();
    models = await Models.load(config, base, { gpu });
    const { provider, reason, threads } = models;
    return { config, provider, reason, threads };
  },

  start({ still }) {
    stream = new Stream(models, config, { still });
    highest = new Map();
  },

  /** Takes a frame that the page's gate has answered for; gives a result where it is due. */
  async frame({ frame, time, due, wanted: asked, interrupted }) {
    if (interrupted) stream.interrupt();
    const wanted = asked && !isHdr(frame);
    const luma = wanted ? await lumaOf(frame) : null;
    // A frame that is only compared needs no colours.
    const image = due || luma === null ? pixelsOf(frame) : null;
    frame.close();
    const result = await stream.take({ image, luma, time, due, wanted });
    for (const person of result?.people ?? []) addCrop(person, image);
    return { result };
  },

  verdict({ duration }) {
    return { verdict: stream.verdict(duration), decision: stream.decision.spec };
  },
};

/** Adds the picture of a face to its result where no earlier one had such a high score. */
function addCrop(person, image) {
  if (person.p_frame === null || person.p_frame <= (highest.get(person.track) ?? -1)) return;
  highest.set(person.track, person.p_frame);
  const size = config.manifest.frame.input_size;
  person.picture = extractCrop(image, person.crop, size, "area");
}

self.addEventListener("message", ({ data }) => {
  queue = queue.then(async () => {
    try {
      const answer = (await handlers[data.type](data)) ?? {};
      self.postMessage({ number: data.number, ...answer });
    } catch (error) {
      self.postMessage({ number: data.number, error: error.message });
    }
  });
});
