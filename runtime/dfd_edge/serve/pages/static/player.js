// A judged file with its overlay and its timeline, kept in step.

import { ask, say } from "/static/api.js";
import { draw, frameAt } from "/static/overlay.js";
import { Timeline } from "/static/timeline.js";

const lines = (text) => text.split("\n").filter(Boolean).map((line) => JSON.parse(line));

export class Player {
  constructor(box) {
    this.box = box;
    this.judgement = JSON.parse(box.dataset.judgement);
    this.limits = JSON.parse(box.dataset.limits);
    this.media = box.querySelector(".media");
    this.canvas = box.querySelector("canvas");
    this.isVideo = this.media instanceof HTMLVideoElement;
    this.frames = [];
    this.evidence = new Map();
    this.step = 0.2;
    this.shows = { boxes: true, evidence: true };
    this.time = 0;
    const strip = box.querySelector(".timeline");
    this.timeline = strip && new Timeline(strip, this.limits, { onGo: (time) => this.goTo(time) });
    for (const choice of box.querySelectorAll("[data-draw]"))
      choice.addEventListener("change", () => {
        this.shows[choice.dataset.draw] = choice.checked;
        this.refresh();
      });
    if (this.media) this.follow();
    this.ready = this.load();
  }

  get duration() {
    return this.judgement.verdict.duration_s;
  }

  async load() {
    const { records, evidence } = this.judgement.links;
    const all = lines(await ask(records));
    const run = all.find((record) => record.record === "run");
    if (run) this.step = 1 / run.rate_hz;
    // A search of a long film goes through some passages twice; each time is kept once.
    const byTime = new Map();
    for (const record of all) if (record.record === "frame") byTime.set(record.time_s, record);
    this.frames = [...byTime.values()].sort((a, b) => a.time_s - b.time_s);
    if (this.timeline)
      this.timeline.show(this.frames, 0, this.duration, this.judgement.verdict.people);
    if (evidence && this.media)
      for (const entry of lines(await ask(evidence))) {
        const others = this.evidence.get(entry.time_s) || [];
        // A passage that was judged twice has two maps of a face; the last one counts.
        const rest = others.filter((other) => other.track !== entry.track);
        this.evidence.set(entry.time_s, [...rest, entry]);
      }
    this.refresh();
  }

  // Redraws whenever another frame of the video is shown.
  follow() {
    const media = this.media;
    media.addEventListener("error", () => this.unplayable());
    if (media.error || (!this.isVideo && media.complete && !media.naturalWidth)) this.unplayable();
    addEventListener("resize", () => this.refresh());
    new ResizeObserver(() => this.refresh()).observe(media);
    if (!this.isVideo) {
      media.addEventListener("load", () => this.refresh());
      return;
    }
    const moved = () => {
      this.time = media.currentTime;
      this.refresh();
    };
    for (const kind of ["loadeddata", "seeked", "timeupdate"]) media.addEventListener(kind, moved);
    // On paper, controls only hide the picture.
    addEventListener("beforeprint", () => (media.controls = false));
    addEventListener("afterprint", () => (media.controls = true));
    if (!("requestVideoFrameCallback" in media)) return;
    const each = (_, { mediaTime }) => {
      this.time = mediaTime;
      this.refresh();
      media.requestVideoFrameCallback(each);
    };
    media.requestVideoFrameCallback(each);
  }

  unplayable() {
    this.box.querySelector(".stage").hidden = true;
    this.box.querySelector(".choices").hidden = true;
    this.box.querySelector(".unplayable").hidden = false;
    this.media = null;
  }

  goTo(time) {
    const to = Math.min(Math.max(time, 0), this.duration);
    this.time = to;
    if (this.media && this.isVideo) this.media.currentTime = to;
    this.refresh();
    this.box.dispatchEvent(new CustomEvent("went", { detail: to }));
  }

  refresh() {
    if (this.timeline) this.timeline.at(this.time);
    if (!this.media) return;
    const frame = this.isVideo ? frameAt(this.frames, this.time, this.step) : this.frames[0] || null;
    this.canvas.dataset.people = draw(this.canvas, this.media, frame, this.evidence, this.shows);
  }
}

// The players of a page, by their names; what cannot be read is said.
export const players = () => {
  const found = [...document.querySelectorAll(".player")].map((box) => new Player(box));
  for (const one of found) one.ready.catch((error) => say(error.message, true));
  return found;
};
