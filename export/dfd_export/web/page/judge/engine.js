/** The bundle's graphs in onnxruntime-web: in WebAssembly, or on the GPU where that agrees. */

const VENDOR = new URL("../vendor/onnxruntime-web/", import.meta.url);
const BATCH = 8;
/** More threads than these wait for each other on graphs of this size. */
const MAX_THREADS = 4;

/** Loads onnxruntime-web; a page loads one of its two builds. */
async function openRuntime(gpu) {
  const ort = await import(new URL(gpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs", VENDOR));
  ort.env.wasm.wasmPaths = VENDOR.href;
  // Threads share memory, which browsers allow where the page is isolated from other origins.
  ort.env.wasm.numThreads = self.crossOriginIsolated
    ? Math.max(1, Math.min(MAX_THREADS, navigator.hardwareConcurrency >> 1))
    : 1;
  ort.env.logLevel = "error";
  return ort;
}

async function bytesOf(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} cannot be loaded (HTTP ${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Whether the browser gives a GPU to compute on; one that is computed by the processor is none. */
async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter != null && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

/** The loaded graphs. */
export class Models {
  /**
   * Loads the graphs that `config.json` names.
   *
   * @param config The site's configuration.
   * @param base Address of the folder that it is in.
   * @param options `gpu`: false leaves the GPU alone even where there is one.
   */
  static async load(config, base, { gpu = true } = {}) {
    const wanted = gpu && config.webgpu && (await hasGpu());
    const models = new Models();
    models.config = config;
    models.ort = await openRuntime(wanted);
    models.provider = "wasm";
    models.threads = models.ort.env.wasm.numThreads;
    models.reason = null;
    const { files } = config;
    const [faces, frame, sequence] = await Promise.all(
      [files.faces, files.frame, files.sequence].map((name) =>
        name ? bytesOf(new URL(name, base)) : null,
      ),
    );
    models.facesSession = faces && (await models.open(faces, "wasm"));
    models.sequenceSession = await models.open(sequence, "wasm");
    if (wanted) await models.tryGpu(frame, await probe(config, base));
    models.frameSession ??= await models.open(frame, "wasm");
    return models;
  }

  open(bytes, provider) {
    return this.ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  }

  /** Runs the frame graph on the GPU, if it gives the probe's logits there. */
  async tryGpu(frame, { crops, logits }) {
    try {
      this.frameSession = await this.open(frame, "webgpu");
      const found = await this.frame(crops);
      const apart = Math.max(...found.map(({ logit }, i) => Math.abs(logit - logits[i])));
      if (!(apart <= this.config.probe.tolerance)) throw new Error(`it differs by ${apart}`);
      this.provider = "webgpu";
    } catch (error) {
      this.frameSession = null;
      this.reason = `the GPU is not used: ${error.message}`;
    }
  }

  /** Runs the face detector on float32 [1, 192, 192, 3]. */
  async faces(square) {
    const [name] = this.facesSession.inputNames;
    const side = Math.sqrt(square.length / 3);
    const input = new this.ort.Tensor("float32", square, [1, side, side, 3]);
    const outputs = await this.facesSession.run({ [name]: input });
    const [raw, logits] = this.facesSession.outputNames.map((output) => outputs[output].data);
    return { raw, logits };
  }

  /** Runs the frame graph on crops of RGB pixels: `[{features, logit, evidence}]`. */
  async frame(crops) {
    const found = [];
    for (let start = 0; start < crops.length; start += BATCH) {
      const batch = crops.slice(start, start + BATCH);
      const { width: side } = batch[0];
      const pixels = new Uint8Array(batch.length * side * side * 3);
      batch.forEach((crop, i) => pixels.set(crop.data, i * side * side * 3));
      const image = new this.ort.Tensor("uint8", pixels, [batch.length, side, side, 3]);
      const outputs = await this.frameSession.run({ image });
      const features = outputs.features.data;
      const width = features.length / batch.length;
      batch.forEach((_, i) => {
        found.push({
          features: features.slice(i * width, (i + 1) * width),
          logit: outputs.fake_logit.data[i],
        });
      });
    }
    return found;
  }

  /** Takes a step of the sequence graph for each person: `[{logit, state}]`. */
  async sequence(steps) {
    const { Tensor } = this.ort;
    const people = steps.length;
    const joined = (arrays, width) => {
      const all = new Float32Array(people * width);
      arrays.forEach((array, i) => array && all.set(array, i * width));
      return all;
    };
    const [features, state] = [steps[0].features.length, steps[0].state.length];
    const feeds = {
      features: new Tensor("float32", joined(steps.map((step) => step.features), features), [
        people,
        1,
        features,
      ]),
      lengths: new Tensor("int32", new Int32Array(people).fill(1), [people]),
      state: new Tensor("float32", joined(steps.map((step) => step.state), state), [people, state]),
    };
    const { signals } = this.config.manifest.sequence;
    if (signals) {
      const width = signals.names.length;
      const measured = Float32Array.from(steps, (step) => (step.signals ? 1 : 0));
      const values = joined(steps.map((step) => step.signals), width);
      feeds.signals = new Tensor("float32", values, [people, 1, width]);
      feeds.measured = new Tensor("float32", measured, [people, 1]);
    }
    const outputs = await this.sequenceSession.run(feeds);
    return steps.map((_, i) => ({
      logit: outputs.fake_logit.data[i],
      state: outputs.next_state.data.slice(i * state, (i + 1) * state),
    }));
  }
}

/** The bundle's own crops with the logits that the frame graph gives for them. */
async function probe(config, base) {
  const { file, logits } = config.probe;
  const blob = new Blob([await bytesOf(new URL(file, base))], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const side = config.manifest.frame.input_size;
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const crops = logits.map((_, i) => {
    const { data } = context.getImageData(0, i * side, side, side);
    const pixels = new Uint8Array(side * side * 3).map((_, j) => data[Math.floor(j / 3) * 4 + (j % 3)]);
    return { data: pixels, width: side, height: side, channels: 3 };
  });
  return { crops, logits };
}
