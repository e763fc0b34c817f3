// The timeline of a clip: a lane for each person, and a cursor that is moved by mouse, finger or keys.

import { clock } from "/static/api.js";

const LEFT = 74;
const RIGHT = 22;
const LANE = 64;
const GAP = 12;
const AXIS = 24;
const MOST_LANES = 12;
const STEP_S = 1;

const drawn = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

const lanesOf = (frames) => {
  const lanes = new Map();
  for (const frame of frames)
    for (const person of frame.people) {
      if (!lanes.has(person.track)) lanes.set(person.track, []);
      lanes.get(person.track).push({ time: frame.time_s, ...person });
    }
  return lanes;
};

// Seconds between ticks, so that there are about eight of them.
const tickStep = (length) =>
  [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((s) => length / s <= 9) || 7200;

export class Timeline {
  // `limits` holds the scores from which the answer is fake, and up to which it is real.
  constructor(box, limits, { onGo = null } = {}) {
    this.box = box;
    this.limits = limits;
    this.onGo = onGo;
    this.frames = [];
    this.people = [];
    this.start = 0;
    this.end = 1;
    this.now = 0;
    new ResizeObserver(() => this.draw()).observe(box);
    if (onGo) this.listen();
  }

  // Shows frames between two times. `people` are the entries of a verdict, for their intervals.
  show(frames, start, end, people = []) {
    this.frames = frames;
    this.people = people;
    this.start = start;
    this.end = Math.max(end, start + 0.1);
    this.draw();
  }

  // Moves the cursor.
  at(time) {
    this.now = time;
    const x = this.x(time);
    if (this.cursor) {
      this.cursor.setAttribute("x1", x);
      this.cursor.setAttribute("x2", x);
    }
    if (!this.onGo) return;
    this.box.setAttribute("aria-valuenow", time.toFixed(1));
    this.box.setAttribute("aria-valuetext", this.words(time));
  }

  words(time) {
    const frame = this.frames.findLast((one) => one.time_s <= time + 0.05);
    const judged = frame ? frame.people.filter((person) => person.p_fake !== null) : [];
    const said = judged.slice(0, 4).map((p) => `person ${p.track} score ${p.p_fake.toFixed(2)}`);
    return [clock(time), ...said].join(", ");
  }

  x(time) {
    const room = this.width - LEFT - RIGHT;
    return LEFT + (room * (time - this.start)) / (this.end - this.start);
  }

  draw() {
    this.width = Math.max(240, this.box.clientWidth);
    const lanes = [...lanesOf(this.frames)].sort((a, b) => b[1].length - a[1].length);
    const shown = lanes.slice(0, MOST_LANES).sort((a, b) => a[0] - b[0]);
    const bottom = GAP + Math.max(1, shown.length) * (LANE + GAP);
    const svg = drawn("svg", {
      viewBox: `0 0 ${this.width} ${bottom + AXIS}`,
      "aria-hidden": "true",
    });
    if (!shown.length)
      svg.append(drawn("text", { x: LEFT, y: GAP + LANE / 2, class: "soft" }, "no face yet"));
    shown.forEach(([track, points], number) =>
      this.lane(svg, track, points, GAP + number * (LANE + GAP)),
    );
    this.axis(svg, bottom);
    const x = this.x(this.now);
    this.cursor = drawn("line", { x1: x, x2: x, y1: 2, y2: bottom, class: "cursor" });
    if (this.onGo) svg.append(this.cursor);
    this.box.replaceChildren(svg);
  }

  axis(svg, bottom) {
    const step = tickStep(this.end - this.start);
    const wanted = (this.width - LEFT - RIGHT) / 64;
    const every = Math.max(1, Math.ceil((this.end - this.start) / step / wanted));
    for (let at = Math.ceil(this.start / step) * step; at <= this.end; at += step * every) {
      const text = at < 60 ? `${+at.toFixed(1)} s` : clock(at).replace(".0 min", "");
      svg.append(drawn("text", { x: this.x(at), y: bottom + 15, class: "axis soft" }, text));
    }
  }

  lane(svg, track, points, top) {
    const y = (score) => top + LANE * (1 - score);
    const person = this.people.find((one) => one.track === track);
    for (const [from, to] of person ? person.intervals : []) {
      const x = this.x(from);
      const width = Math.max(2, this.x(to) - x);
      svg.append(drawn("rect", { x, y: top, width, height: LANE, class: "suspicious" }));
    }
    const across = { x: LEFT, y: top, width: this.width - LEFT - RIGHT, height: LANE };
    svg.append(drawn("rect", { ...across, class: "lane" }));
    for (const kind of ["fake", "real"]) {
      const at = y(this.limits[kind]);
      const ends = { x1: LEFT, x2: this.width - RIGHT, y1: at, y2: at };
      svg.append(drawn("line", { ...ends, class: `limit ${kind}` }));
    }
    svg.append(drawn("text", { x: 6, y: top + LANE / 2 + 4 }, `Person ${track}`));
    this.scores(svg, points, y);
    for (const point of points.filter((one) => !one.judged)) {
      const x = this.x(point.time);
      const cross = `M${x - 2.5} ${top + LANE - 7}l5 5m0 -5l-5 5`;
      svg.append(drawn("path", { d: cross, class: "passed" }));
    }
  }

  // The line of the scores; it is interrupted where nothing was judged for more than a second.
  scores(svg, points, y) {
    let path = "";
    let last = null;
    const judged = points.filter((one) => one.judged && one.p_fake !== null);
    for (const point of judged) {
      const joined = last !== null && point.time - last <= 1.01;
      path += `${joined ? "L" : "M"}${this.x(point.time).toFixed(1)} ${y(point.p_fake).toFixed(1)}`;
      last = point.time;
    }
    svg.append(drawn("path", { d: path || "M0 0", class: "score" }));
    if (judged.length < 40)
      for (const point of judged)
        svg.append(
          drawn("circle", { cx: this.x(point.time), cy: y(point.p_fake), r: 2.5, class: "dot" }),
        );
  }

  listen() {
    const go = (event) => {
      const { left } = this.box.getBoundingClientRect();
      const x = event.clientX - left - this.box.clientLeft;
      const share = (x - LEFT) / (this.width - LEFT - RIGHT);
      this.goTo(this.start + share * (this.end - this.start));
    };
    this.box.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      go(event);
      this.box.setPointerCapture(event.pointerId);
    });
    this.box.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) go(event);
    });
    this.box.addEventListener("keydown", (event) => {
      const moves = {
        ArrowRight: this.now + STEP_S,
        ArrowUp: this.now + STEP_S,
        ArrowLeft: this.now - STEP_S,
        ArrowDown: this.now - STEP_S,
        PageUp: this.now + 10 * STEP_S,
        PageDown: this.now - 10 * STEP_S,
        Home: this.start,
        End: this.end,
      };
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      this.goTo(moves[event.key]);
    });
  }

  goTo(time) {
    this.onGo(Math.min(Math.max(time, this.start), this.end));
  }
}
