/** Draws boxes over the picture, the score over time, and the verdict. */

import { clock, count, percent, score, verdictWords } from "./words.js";

const $ = (id) => document.getElementById(id);

/** An element with a text and perhaps a class. */
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

function badge(label, { names, symbols }) {
  return element("span", `${symbols[label]} ${names[label]}`, `badge ${label}`);
}

/** Draws the people of a result over a picture of this size. */
export function drawBoxes(result, width, height, config) {
  const canvas = $("boxes");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const size = Math.max(12, Math.round(Math.max(width, height) / 40));
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  for (const person of result?.people ?? []) {
    const [x0, y0, x1, y1] = person.box;
    const name = person.judged ? person.label : "none";
    context.strokeStyle = colour(name);
    context.lineWidth = Math.max(2, size / 6);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    const { names, symbols } = config.words;
    const said = person.judged
      ? `${symbols[person.label]} ${names[person.label]} ${score(person.p_fake, config.decision)}`
      : person.reason;
    const text = `${person.track}: ${said}`;
    const top = Math.max(size * 1.4, y0);
    context.fillStyle = colour(name);
    context.fillRect(x0, top - size * 1.4, context.measureText(text).width + size, size * 1.4);
    context.fillStyle = colour(`${name}-ink`);
    context.fillText(text, x0 + size / 2, top - size * 0.15);
  }
}

/** Draws each moment's highest score; `now` is where the video is. */
export function drawTimeline(points, duration, decision, now) {
  const canvas = $("timeline");
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const first = points[0]?.time ?? 0;
  const end = duration ?? Math.max(first + 1, points.at(-1)?.time ?? 0);
  const start = duration === null ? Math.max(first, end - 60) : 0;
  const x = (time) => ((time - start) / (end - start)) * width;
  const y = (p) => 4 + (1 - p) * (height - 8);
  const { fake, real } = decision.thresholds;
  context.fillStyle = colour("ground");
  context.fillRect(0, 0, width, height);
  context.globalAlpha = 0.25;
  for (const [name, from, to] of [
    ["fake", 1, fake.probability],
    ["unsure", fake.probability, real.probability],
    ["real", real.probability, 0],
  ]) {
    context.fillStyle = colour(name);
    context.fillRect(0, y(from), width, y(to) - y(from));
  }
  context.globalAlpha = 1;
  context.strokeStyle = context.fillStyle = colour("ink");
  context.lineWidth = 2;
  context.beginPath();
  let last = null;
  for (const { time, p } of points) {
    if (p === null) last = null;
    else {
      if (last === null) context.moveTo(x(time), y(p));
      else context.lineTo(x(time), y(p));
      context.fillRect(x(time) - 1.5, y(p) - 1.5, 3, 3);
      last = time;
    }
  }
  context.stroke();
  if (duration !== null) context.fillRect(x(now) - 0.5, 0, 1, height);
}

/** Puts the score over time into words. */
export function describeTimeline(points, live) {
  const judged = points.filter(({ p }) => p !== null);
  if (!judged.length) return "No face has been judged yet.";
  const most = judged.reduce((a, b) => (b.p > a.p ? b : a));
  const where = live ? "" : ` Select a place in it to see that moment.`;
  const at = live ? "" : ` at ${clock(most.time)}`;
  return `${count(judged.length, "moment", "moments")} judged; the highest score is ${most.p.toFixed(2)}${at}.${where}`;
}

/** Shows the verdict; `seek` is called with the second that somebody wants to see. */
export function showVerdict({ verdict, decision, config, still, live, pictures, leftOut, seek }) {
  const label = $("label");
  label.replaceWith(Object.assign(badge(verdict.label, config.words), { id: "label" }));
  $("words").textContent = verdictWords(verdict, decision, still);
  showScale(verdict.p_fake, decision);
  const facts = [];
  if (!still) {
    facts.push(["Moments judged", `${Math.round(verdict.coverage * verdict.frames)} of ${verdict.frames}`]);
    facts.push(["Length", clock(verdict.duration_s)]);
    const compared = verdict.people.reduce((sum, { signals }) => sum + (signals?.measured_steps ?? 0), 0);
    if (config.manifest.sequence.signals) facts.push(["Consecutive frames compared", `${compared} times`]);
    facts.push(["Coverage", percent(verdict.coverage)]);
    if (live && leftOut) facts.push(["Moments left out", `${leftOut}`]);
    if (verdict.first_verdict_s !== null) {
      facts.push(["First answer after", clock(verdict.first_verdict_s)]);
    }
  }
  if (verdict.reason) facts.push(["Not complete", verdict.reason]);
  $("facts").replaceChildren(
    ...facts.map(([name, value]) => {
      const part = element("div");
      part.append(element("dt", name), element("dd", value));
      return part;
    }),
  );
  $("people-part").hidden = !verdict.people.length;
  const rows = verdict.people.map((person) => row(person, decision, config, pictures, live || still ? null : seek));
  $("people").replaceChildren(...rows);
  $("verdict").hidden = false;
  $("verdict-title").focus();
}

function showScale(p, decision) {
  $("scale").hidden = p === null;
  if (p === null) return;
  const { fake, real } = decision.thresholds;
  const [low, middle, high] = $("bar").children;
  low.style.width = `${real.probability * 100}%`;
  middle.style.width = `${(fake.probability - real.probability) * 100}%`;
  high.style.width = `${(1 - fake.probability) * 100}%`;
  $("bar").querySelector(".needle").style.left = `${p * 100}%`;
  $("bar").setAttribute("aria-label", `Score ${score(p, decision)} on a scale from 0, real, to 1, fake`);
}

function row(person, decision, config, pictures, seek) {
  const line = element("tr");
  const number = element("th", `${person.track} `);
  number.scope = "row";
  const picture = pictures.get(person.track);
  if (picture) number.append(cropCanvas(picture, person.track));
  const verdict = element("td");
  verdict.append(badge(person.label, config.words));
  verdict.dataset.name = "Verdict";
  const where = element("td", person.intervals.length ? "" : "-");
  for (const [from, to] of person.intervals) {
    const text = `${clock(from)} to ${clock(to)}`;
    if (!seek) where.append(element("span", `${text} `));
    else {
      const button = element("button", text);
      button.type = "button";
      button.addEventListener("click", () => seek(from));
      where.append(button);
    }
  }
  const steps = element("td", `${person.judged_steps}`, "number");
  const value = element("td", score(person.p_fake, decision), "number");
  value.dataset.name = "Score";
  steps.dataset.name = "Judged";
  where.dataset.name = "Looked fake";
  line.append(number, verdict, value, steps, where);
  return line;
}

/** The face as the model saw it when its score was highest. */
function cropCanvas({ data, width, height }, track) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Face of person ${track} as the model saw it`);
  canvas.className = "face";
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data.set([data[from], data[from + 1], data[from + 2], 255], to);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
