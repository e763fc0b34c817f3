/** The page: choosing a source, following it, showing its verdict. */

import { Judge } from "./judging.js";
import { Player } from "./player.js";
import { describeTimeline, drawBoxes, drawTimeline, showVerdict } from "./view.js";
import { count } from "./words.js";

const $ = (id) => document.getElementById(id);
/** A clip is judged whole where this share of its moments was seen. */
const MOST_MOMENTS = 0.9;
const video = $("video");
const judge = new Judge();
let config = null;
let player = null;
let camera = null;
/** What was seen of the source that is shown. */
let seen = nothingSeen();

function nothingSeen() {
  return { results: [], points: [], pictures: new Map(), live: false, address: null };
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

const status = (text) => ($("loading").textContent = text);

async function load() {
  const gpu = new URLSearchParams(location.search).get("gpu") !== "no";
  const loaded = await judge.load(gpu);
  config = loaded.config;
  const threads = count(loaded.threads, "thread", "threads");
  const where = loaded.provider === "webgpu" ? "on the GPU" : `in WebAssembly, ${threads}`;
  status("Ready.");
  $("limits").replaceChildren(
    ...config.limits.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  const details = [
    ["Model", `${config.name} ${config.hash}, ${config.precision}`],
    ["Runs", where],
    ...(loaded.reason ? [["Note", loaded.reason]] : []),
    ["Program", `dfd-edge ${config.version ?? ""}, onnxruntime-web ${config.onnxruntime}`],
  ];
  $("details").replaceChildren(
    ...details.flatMap(([name, value]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    ]),
  );
  $("file").disabled = $("camera").disabled = false;
}

/** Ends what is being judged, without a verdict, and makes room for another source. */
async function reset(still) {
  player?.abandon();
  player = null;
  closeCamera();
  if (seen.address) URL.revokeObjectURL(seen.address);
  seen = nothingSeen();
  trouble("");
  $("progress").textContent = $("timeline-words").textContent = "";
  $("verdict").hidden = true;
  $("stage-section").hidden = false;
  $("timeline-part").hidden = still;
  $("stop").hidden = still;
  $("replay").hidden = true;
  $("still").hidden = !still;
  video.hidden = still;
  video.srcObject = null;
  video.removeAttribute("src");
  video.controls = false;
  drawBoxes(null, 1, 1, config);
  await judge.start(still);
}

function closeCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
}

async function judgeFile(file) {
  const still = file.type.startsWith("image/");
  await reset(still);
  status(`Judging ${file.name}…`);
  if (still) return judgeStill(file);
  seen.address = URL.createObjectURL(file);
  video.src = seen.address;
  await new Promise((resolve, reject) => {
    video.addEventListener("loadeddata", resolve, { once: true });
    video.addEventListener("error", () => reject(new Error(cannotPlay(file))), { once: true });
  });
  if (!video.videoWidth) throw new Error(cannotPlay(file));
  return follow(false);
}

const cannotPlay = (file) =>
  `${file.name}: this browser cannot play it: convert it to MP4 (H.264) or WebM, or judge it with dfd-edge on a computer.`;

async function judgeStill(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name}: this browser cannot read the picture: give a JPEG, PNG or WebP.`);
  }
  const { width, height } = bitmap;
  const canvas = Object.assign($("still"), { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const result = await judge.frame({ frame: bitmap, time: 0, due: true, wanted: false });
  remember(result);
  drawBoxes(result, width, height, config);
  await conclude(null);
}

async function judgeCamera() {
  await reset(false);
  try {
    camera = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" },
    });
  } catch (error) {
    $("stage-section").hidden = true;
    throw new Error(`The camera cannot be used (${error.message}): allow it, or choose a file.`);
  }
  seen.live = true;
  status("Judging the camera…");
  video.srcObject = camera;
  await follow(true);
}

async function follow(live) {
  player = new Player(video, config, (values) => judge.frame(values), {
    live,
    onResult: remember,
    onEnd: () => conclude(live ? null : video.duration).catch(failed),
    onTrouble: failed,
  });
  await player.start();
}

/** Keeps a result and shows it. */
function remember(result) {
  const p = result.people.reduce((most, { p_fake: score }) => Math.max(most, score ?? -1), -1);
  seen.points.push({ time: result.time_s, p: p < 0 ? null : p });
  for (const person of result.people) {
    if (person.picture) seen.pictures.set(person.track, person.picture);
    delete person.picture;
  }
  seen.results.push(result);
  if (seen.live && seen.results.length > 3000) {
    seen.results.shift();
    seen.points.shift();
  }
  if (!player) return;
  drawBoxes(result, video.videoWidth, video.videoHeight, config);
  drawScores();
  const length = seen.live ? "" : ` of ${video.duration.toFixed(1)} s`;
  $("progress").textContent = `${result.time_s.toFixed(1)} s${length}, ${count(player.judged, "moment", "moments")} judged`;
}

function drawScores() {
  const duration = seen.live ? null : video.duration;
  drawTimeline(seen.points, duration, config.decision, video.currentTime);
  $("timeline-words").textContent = describeTimeline(seen.points, seen.live);
}

async function conclude(duration) {
  const { verdict, decision } = await judge.verdict(duration);
  const still = duration === null && !seen.live;
  if (duration !== null) notePassedOver(verdict, duration);
  closeCamera();
  $("stop").hidden = true;
  $("replay").hidden = still || seen.live;
  video.controls = !still && !seen.live;
  status("Done. Choose something else, or read the verdict below.");
  const { live, pictures } = seen;
  const leftOut = player?.leftOut ?? 0;
  showVerdict({ verdict, decision, config, still, live, pictures, leftOut, seek });
}

/** Notes in the verdict where the browser did not hand on most of a clip's moments. */
function notePassedOver(verdict, duration) {
  const due = Math.floor(duration * config.manifest.sequence.rate_hz);
  if (verdict.frames >= MOST_MOMENTS * due) return;
  verdict.complete = false;
  verdict.reason = `the browser handed on ${verdict.frames} of ${due} moments, or judging was stopped`;
}

function seek(time) {
  video.pause();
  video.currentTime = time;
  $("stage").scrollIntoView({ block: "nearest" });
}

function failed(error) {
  closeCamera();
  status("");
  trouble(error.message);
}

/** Shows the boxes of the last judged moment while a judged file is played again. */
function followPlayback() {
  if (!player?.ended || seen.live) return;
  const before = seen.results.filter((result) => result.time_s <= video.currentTime + 0.02);
  drawBoxes(before.at(-1), video.videoWidth, video.videoHeight, config);
  drawScores();
}

const run = (work) => work.catch(failed);

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) run(judgeFile(file));
  target.value = "";
});
$("camera").addEventListener("click", () => run(judgeCamera()));
$("stop").addEventListener("click", () => player?.end());
$("replay").addEventListener("click", () => {
  video.currentTime = 0;
  run(video.play());
});
$("timeline").addEventListener("click", (event) => {
  if (!player?.ended || seen.live) return;
  seek((event.offsetX / $("timeline").clientWidth) * video.duration);
});
video.addEventListener("timeupdate", followPlayback);
video.addEventListener("seeked", followPlayback);
window.addEventListener("resize", () => seen.points.length && player && drawScores());
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file && config) run(judgeFile(file));
});

run(load());
if ("serviceWorker" in navigator) {
  // Without one, such as in a private window, the page works as long as the server is there.
  navigator.serviceWorker.register("service-worker.js").catch(() => {});
}
