// Runs a bundle's graphs in onnxruntime-web under Node.js: `node judge.mjs BUNDLE crop*.png`.
// Needs `npm install onnxruntime-web pngjs`; the pictures have the model's input size.
// A sequence model may also take signals, measured on consecutive frames. Crops alone have none:
// the steps count as not measured.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { PNG } from "pngjs";

const [folder, ...pictures] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`));
const open = (file) => ort.InferenceSession.create(readFileSync(`${folder}/${file}`));
const frame = await open(manifest.frame.variants.fp32.file);
const sequence = await open(manifest.sequence.file);
const { input_size: size, feature_width: width } = manifest.frame;
const { frame: byFrame, step: byStep } = manifest.decision.calibrators;
const pFake = (logit, { slope, intercept }) => 1 / (1 + Math.exp(-(slope * logit + intercept)));
const say = (logit, calibrator) => `${logit.toFixed(4)} P(fake) ${pFake(logit, calibrator).toFixed(4)}`;

const zeros = (...shape) =>
  new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)), shape);
let state = zeros(1, manifest.sequence.state_width);
const { signals } = manifest.sequence;
const unmeasured = signals ? { signals: zeros(1, 1, signals.names.length), measured: zeros(1, 1) } : {};
const lengths = new ort.Tensor("int32", [1], [1]);
for (const picture of pictures) {
  const rgb = PNG.sync.read(readFileSync(picture)).data.filter((_, i) => i % 4 < 3);
  const image = new ort.Tensor("uint8", rgb, [1, size, size, 3]);
  const { features, fake_logit: logit } = await frame.run({ image });
  const inputs = { features: features.reshape([1, 1, width]), lengths, state, ...unmeasured };
  const step = await sequence.run(inputs);
  state = step.next_state;
  console.log(`${picture} frame ${say(logit.data[0], byFrame)}  step ${say(step.fake_logit.data[0], byStep)}`);
}
