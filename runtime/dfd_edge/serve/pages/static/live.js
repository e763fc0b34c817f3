// Live sources: the annotated picture, the scores of the last minute, and what happened.

import { NAMES, clock, element, listen, say } from "/static/api.js";
import { Timeline } from "/static/timeline.js";

const SHOWN_S = 60;
const MOST_EVENTS = 50;
const DRAW_MS = 250;
const WORDS = {
  opening: "opening",
  watching: "",
  waiting: "cannot be reached, will be tried again",
  ended: "has ended",
  failed: "cannot be watched",
};

class Source {
  constructor(section) {
    this.section = section;
    this.name = section.dataset.live;
    this.address = `/v1/live/${encodeURIComponent(this.name)}`;
    this.timeline = new Timeline(section.querySelector(".timeline"), JSON.parse(section.dataset.limits));
    this.picture = section.querySelector(".picture");
    this.frames = [];
    this.verdict = "";
    this.status = null;
    this.arrived = performance.now();
    this.changed = false;
    this.held = false;
    this.loading = false;
    this.picture.addEventListener("load", () => {
      this.loading = false;
      this.picture.hidden = false;
      section.querySelector(".no-picture").hidden = true;
    });
    this.picture.addEventListener("error", () => (this.loading = false));
    setInterval(() => this.draw(), DRAW_MS);
  }

  forget() {
    this.frames = [];
    this.verdict = "";
    this.section.querySelector(".events").replaceChildren(
      element("li", { class: "none soft" }, "None so far."),
    );
  }

  take(status) {
    const before = this.status;
    if (before && status.state === "opening" && before.state !== "opening") this.forget();
    this.status = status;
    if (status.label !== null) this.show();
    const detail = this.section.querySelector(".detail");
    detail.hidden = !status.detail;
    detail.textContent = status.detail || "";
    if (before && before.state !== status.state) say(`${this.name}: ${WORDS[status.state] || "is watched"}`);
    this.changed = true;
  }

  add(record) {
    if (record.record === "frame") this.addFrame(record);
    else if (record.record === "event") this.addEvent(clock(record.time_s), `${record.kind}: ${record.detail}`);
    else if (record.record === "verdict") {
      this.verdict = `over all ${clock(record.duration_s)}: ${NAMES[record.label].toLowerCase()}`;
      this.addEvent(clock(record.duration_s), this.verdict);
    }
    this.changed = true;
  }

  addFrame(record) {
    this.show();
    const last = this.frames.at(-1);
    if (last && record.time_s <= last.time_s) this.frames = [];
    this.frames.push(record);
    while (record.time_s - this.frames[0].time_s > SHOWN_S) this.frames.shift();
    this.arrived = performance.now() - (record.staleness_ms || 0);
    const label = this.label();
    if (this.said && label !== this.said && [label, this.said].includes("fake")) {
      this.addEvent(clock(record.time_s), `now ${NAMES[label].toLowerCase()}`);
      say(`${this.name}: ${NAMES[label]}`);
    }
    this.said = label;
  }

  addEvent(time, text) {
    const list = this.section.querySelector(".events");
    list.querySelector(".none")?.remove();
    list.prepend(element("li", {}, element("span", { class: "number" }, time), ` ${text}`));
    while (list.children.length > MOST_EVENTS) list.lastChild.remove();
  }

  label() {
    const newest = this.frames.at(-1);
    if (!newest) return null;
    const labels = newest.people.map((person) => person.label);
    return ["fake", "unsure", "real"].find((label) => labels.includes(label)) || "no_face";
  }

  draw() {
    const { state } = this.status || { state: "opening" };
    const watching = state === "watching";
    const label = watching ? this.label() : null;
    const badge = this.section.querySelector(".state");
    badge.className = `state badge ${label || ""}`;
    badge.textContent = label ? NAMES[label] : WORDS[state] || "no picture yet";
    this.picture.alt = `The newest judged frame of ${this.name}: ${badge.textContent}`;
    const figures = this.section.querySelector(".figures");
    const age = (performance.now() - this.arrived) / 1000;
    figures.textContent = watching && this.frames.length ? this.words(age) : this.verdict;
    if (!this.changed) return;
    this.changed = false;
    const end = this.frames.length ? this.frames.at(-1).time_s : 0;
    this.timeline.show(this.frames, Math.max(0, end - SHOWN_S), Math.max(end, 10));
  }

  words(age) {
    const people = this.frames.at(-1).people.length;
    const { dropped, gaps } = this.status;
    const parts = [
      age > 2 ? `nothing new for ${clock(age)}` : `${Math.round(age * 1000)} ms old`,
      people === 1 ? "1 person" : `${people} people`,
    ];
    if (dropped) parts.push(`${dropped} frames passed over`);
    if (gaps) parts.push(`lost ${gaps === 1 ? "once" : `${gaps} times`}`);
    return parts.join(" · ");
  }

  // Loads the newest picture, unless one is on its way. One request a picture: a browser has few
  // connections to a host, which endless ones would use up.
  show() {
    if (this.held || this.loading) return;
    this.loading = true;
    this.picture.src = `${this.address}/picture?still=true&at=${performance.now()}`;
  }

  hold(held) {
    this.held = held;
    if (this.frames.length) this.show();
  }
}

const sources = new Map();
for (const section of document.querySelectorAll("[data-live]"))
  sources.set(section.dataset.live, new Source(section));
const still = document.getElementById("still");
still?.addEventListener("click", () => {
  const held = still.getAttribute("aria-pressed") !== "true";
  still.setAttribute("aria-pressed", String(held));
  still.textContent = held ? "Go on" : "Hold the pictures";
  for (const source of sources.values()) source.hold(held);
});
// For those who asked for less motion, pictures move on request only.
if (matchMedia("(prefers-reduced-motion: reduce)").matches) still?.click();
if (sources.size)
  listen("/v1/live/events", {
    open: () => sources.forEach((source) => source.forget()),
    state: (status) => sources.get(status.name)?.take(status),
    record: (record) => sources.get(record.source)?.add(record),
  });
