/** One stream of frames: its people, their scores, and the verdict so far. */

import { assess, cropRegion, extractCrop, middleSquare } from "./crop.js";
import { Decision, PersonHistory } from "./decision.js";
import { FaceDetector } from "./faces.js";
import { grey, shrunkPlane } from "./pixels.js";
import { ForeseenBursts, RecentPlanes, Sampler } from "./sampling.js";
import { measure } from "./signals.js";
import { Tracker } from "./tracker.js";

const LABELS = ["fake", "unsure", "real"];

/** Chooses the frames of a stream that are judged or measured. */
export class Gate {
  constructor(config) {
    const { manifest, rules } = config;
    this.sampler = new Sampler(manifest.sequence.rate_hz, rules.sampling);
    this.bursts = manifest.sequence.signals && new ForeseenBursts(this.sampler, rules.sampling);
  }

  /** What to do with the frame at a time: whether it is due, and whether its luma is kept. */
  ask(time) {
    const due = this.sampler.isDue(time);
    return { due, wanted: this.bursts ? this.bursts.wants(time, due) : false };
  }

  /** Notes that frames were lost before the next one. */
  interrupt() {
    this.bursts?.interrupt();
  }
}

/** Judges the frames of one source. */
export class Stream {
  /**
   * @param models `Models` of `engine.js`.
   * @param config The site's `config.json`.
   */
  constructor(models, config, { still = false } = {}) {
    const { manifest, rules } = config;
    this.models = models;
    this.manifest = manifest;
    this.rules = rules;
    const decision = new Decision(config.decision);
    this.decision = still ? decision.forStills() : decision;
    this.gate = new Gate(config);
    this.recent = new RecentPlanes(rules.sampling);
    this.tracker = new Tracker(rules.tracker);
    this.detector =
      manifest.face.detector === "none"
        ? null
        : new FaceDetector((square) => models.faces(square), manifest.face.options, rules.detector);
    this.people = new Map();
    this.left = [];
    this.counts = { frames: 0, judged: 0, faces: 0, seenS: 0, last: null, notFinite: 0 };
    this.firstVerdictS = null;
    this.still = still;
  }

  /** Judges a frame if it is due; returns its result or null. */
  async push(image, time) {
    const { due, wanted } = this.gate.ask(time);
    return this.take({ image, time, due, wanted });
  }

  /**
   * Takes a frame that a gate has answered for.
   *
   * @param frame `image`, `time`, `due` and `wanted`; `luma`, a plane of full range, where the
   *     decoder's own is known; without it brightness is computed of the colours.
   */
  async take({ image, luma = null, time, due, wanted }) {
    let burst = null;
    if (wanted) {
      const plane = shrunkPlane(luma ?? grey(image), this.rules.sampling.burstSide);
      burst = this.recent.keep(plane, time);
    } else this.recent.interrupt();
    if (!due) return null;
    const faces = await this.observe(image, time, burst);
    return this.score(faces, time, burst !== null);
  }

  /** Notes that frames were lost before the next one. */
  interrupt() {
    this.recent.interrupt();
  }

  /** Detects, tracks and crops the faces of a frame, and measures a burst round them. */
  async observe(image, time, burst) {
    const { frame } = this.manifest;
    const size = frame.input_size;
    const resize = frame.resize ?? "area";
    if (!this.detector) {
      const region = middleSquare(image);
      const box = [region.x0, region.y0, region.x0 + region.side, region.y0 + region.side];
      const crop = extractCrop(image, region, size, resize);
      return [{ track: 1, box, region, crop, quality: { judged: true, reason: null }, signals: null }];
    }
    const found = await this.detector.detect(image, { thorough: this.still });
    return this.tracker.update(found, time, image).map(({ track, face }) => {
      const region = cropRegion(face.box, frame.crop_scale);
      const crop = extractCrop(image, region, size, resize);
      const quality = assess(face, crop, this.rules.quality);
      const signals =
        burst && quality.judged
          ? measure(burst, face.box, face.keypoints, image, this.rules.signals)
          : null;
      return { track, box: face.box, region, crop, quality, signals };
    });
  }

  /** Judges the faces of a frame: one batch through the frame model, one step of each person. */
  async score(faces, time, hasBurst) {
    const judged = faces.filter((face) => face.quality.judged);
    for (const face of faces) this.person(face.track).lastSeen = time;
    const outputs = judged.length ? await this.models.frame(judged.map((face) => face.crop)) : [];
    const usable = judged
      .map((face, i) => ({ face, ...outputs[i] }))
      .filter(({ logit, features }) => Number.isFinite(logit) && features.every(Number.isFinite));
    if (!this.still) await this.step(usable, time);
    const scored = new Map();
    for (const { face, logit, stepLogit } of usable) {
      const taken = this.still ? logit : stepLogit;
      if (!Number.isFinite(taken)) continue;
      const person = this.people.get(face.track);
      person.history.add(time, logit, taken, this.still ? Infinity : face.quality.detail);
      if (!hasBurst) person.withoutBurst += 1;
      else if (face.signals) person.measured += 1;
      scored.set(face.track, { logit, stepLogit: this.still ? null : stepLogit });
    }
    this.count(faces, time, scored.size, judged.length - scored.size);
    const people = faces.map((face) => this.result(face, scored.get(face.track)));
    this.forget(time);
    const label = LABELS.find((name) => people.some((person) => person.label === name));
    const decided = people.some((person) => person.label === "fake" || person.label === "real");
    if (this.firstVerdictS === null && decided) this.firstVerdictS = this.counts.seenS;
    return { time_s: time, people, label: label ?? "no_face" };
  }

  /** One step of the sequence model, each person with their own state. */
  async step(usable, time) {
    if (!usable.length) return;
    const { state_width: width, max_gap_s: maxGap } = this.manifest.sequence;
    const steps = usable.map(({ face, features }) => {
      const person = this.people.get(face.track);
      const passed = time - person.lastStep;
      const goesOn = passed >= 0 && passed <= maxGap && person.state !== null;
      person.lastStep = time;
      return {
        features,
        signals: face.signals,
        state: goesOn ? person.state : new Float32Array(width),
      };
    });
    const outputs = await this.models.sequence(steps);
    outputs.forEach(({ logit, state }, i) => {
      const finite = Number.isFinite(logit) && state.every(Number.isFinite);
      this.people.get(usable[i].face.track).state = finite ? state : null;
      usable[i].stepLogit = finite ? logit : NaN;
    });
  }

  /** The verdict on everything seen so far; `duration` where it is known. */
  verdict(duration = null) {
    const { counts } = this;
    const present = [...this.people.values()].map((person) => this.verdictOn(person, duration));
    const people = [...this.left, ...present].sort((a, b) => a.track - b.track);
    const { label, person } = this.decision.source(people, counts.faces > 0);
    return {
      label: counts.frames ? label : "unsure",
      p_fake: person?.p_fake ?? null,
      coverage: counts.frames ? counts.judged / counts.frames : 0,
      frames: counts.frames,
      duration_s: this.still ? 0 : (duration ?? counts.seenS),
      first_verdict_s: this.still ? null : this.firstVerdictS,
      people,
      complete: counts.notFinite === 0,
      reason: counts.notFinite
        ? `the model gave numbers that are not finite for ${counts.notFinite} faces`
        : null,
    };
  }

  verdictOn({ history, measured, withoutBurst }, duration = null) {
    const verdict = history.verdict(duration ?? Infinity);
    if (this.still) verdict.intervals = [];
    const signals = this.manifest.sequence.signals
      ? { measured_steps: measured, without_burst: withoutBurst }
      : null;
    return { ...verdict, signals };
  }

  result(face, scores) {
    const { history } = this.people.get(face.track);
    const notFinite = face.quality.judged && !scores;
    return {
      track: face.track,
      box: face.box,
      crop: face.region,
      judged: scores !== undefined,
      reason: notFinite ? "not finite" : face.quality.reason,
      p_frame: scores ? this.decision.pFrame(scores.logit) : null,
      p_step: scores && !this.still ? this.decision.pStep(scores.stepLogit) : null,
      p_fake: history.liveP,
      label: this.still && scores ? this.decision.label(history.liveP) : history.liveLabel,
      frame_logit: scores?.logit ?? null,
      step_logit: scores?.stepLogit ?? null,
      signals: scores && face.signals ? [...face.signals] : null,
    };
  }

  person(track) {
    let person = this.people.get(track);
    if (!person) {
      const period = this.still ? 0 : this.gate.sampler.period;
      person = {
        history: new PersonHistory(track, this.decision, period, this.rules.decision),
        state: null,
        lastStep: -Infinity,
        lastSeen: -Infinity,
        measured: 0,
        withoutBurst: 0,
      };
      this.people.set(track, person);
    }
    return person;
  }

  count(faces, time, judged, notFinite) {
    const { counts } = this;
    counts.frames += 1;
    counts.faces += faces.length > 0;
    counts.judged += judged > 0;
    counts.notFinite += notFinite;
    const passed = counts.last === null ? this.gate.sampler.period : time - counts.last;
    counts.seenS += Math.max(0, passed);
    counts.last = time;
  }

  /** Reduces people who left to their verdicts, and drops passers-by. */
  forget(time) {
    for (const [track, person] of this.people) {
      if (time - person.lastSeen <= this.rules.decision.forgetAfterS) continue;
      this.people.delete(track);
      if (person.history.isLong) this.left.push(this.verdictOn(person));
    }
  }
}
