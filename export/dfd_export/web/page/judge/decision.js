/** From logits to labels: pooling, calibration, thresholds, hysteresis, as `judging/decision.py`. */

/** The probability that belongs to a logit. */
export function sigmoid(logit) {
  if (logit >= 0) return 1 / (1 + Math.exp(-logit));
  const odds = Math.exp(logit);
  return odds / (1 + odds);
}

const calibrated = (logit, { slope, intercept }) => sigmoid(slope * logit + intercept);

/** The rules of a bundle: the `decision` of its manifest. */
export class Decision {
  constructor(spec) {
    this.spec = spec;
    this.fakeThreshold = spec.thresholds.fake.probability;
    this.realThreshold = spec.thresholds.real.probability;
  }

  /** The rules for a still: one crop decides. */
  forStills() {
    const { spec } = this;
    const still = spec.still ?? { calibrator: spec.calibrators.frame, thresholds: spec.thresholds };
    return new Decision({
      ...spec,
      person_score: "frame",
      calibrators: { ...spec.calibrators, frame: still.calibrator, person: still.calibrator },
      thresholds: still.thresholds,
      min_steps: 1,
      settle_steps: 0,
      settle_detail: 0,
    });
  }

  pFrame(logit) {
    return calibrated(logit, this.spec.calibrators.frame);
  }

  pStep(logit) {
    return calibrated(logit, this.spec.calibrators.step);
  }

  /** How much a judged step counts: 1, or less where the crop is blurred. */
  share(detail) {
    const half = this.spec.settle_detail;
    return half > 0 && Number.isFinite(detail) ? detail / (detail + half) : 1;
  }

  /** The calibrated probability of a person, from one judged step `{logit, share}` or more. */
  pPerson(sums) {
    const { slope, intercept } = this.spec.calibrators.person;
    if (this.spec.person_score === "last") return sigmoid(slope * sums.last + intercept);
    const weight = sums.steps + this.spec.settle_steps;
    return sigmoid((slope * sums.logits + intercept * sums.shares) / weight);
  }

  /** The logit that a person's score is made of. */
  choose(frameLogit, stepLogit) {
    return this.spec.person_score === "frame" ? frameLogit : stepLogit;
  }

  label(p) {
    if (p >= this.fakeThreshold) return "fake";
    return p <= this.realThreshold ? "real" : "unsure";
  }

  /** The label of a source, and the most suspicious person judged long enough, or null. */
  source(people, faceSeen) {
    const judged = people.filter(
      (person) => person.p_fake !== null && person.judged_steps >= this.spec.min_steps,
    );
    if (!judged.length) return { label: faceSeen ? "unsure" : "no_face", person: null };
    const person = judged.reduce((most, other) => (other.p_fake > most.p_fake ? other : most));
    return { label: this.label(person.p_fake), person };
  }
}

/** Keeps a live label from flickering: another one has to last. */
class Hysteresis {
  constructor(decision, rules) {
    const margin = rules.leaveShare * (decision.fakeThreshold - decision.realThreshold);
    this.leaveFake = decision.fakeThreshold - margin;
    this.leaveReal = decision.realThreshold + margin;
    this.decision = decision;
    this.holdS = rules.holdS;
    this.label = "unsure";
    this.candidate = "unsure";
    this.since = 0;
  }

  update(p, time) {
    const wanted = this.wanted(p);
    if (wanted !== this.candidate) [this.candidate, this.since] = [wanted, time];
    if (time - this.since >= this.holdS) this.label = wanted;
    return this.label;
  }

  wanted(p) {
    if (this.label === "fake" && p >= this.leaveFake) return "fake";
    if (this.label === "real" && p <= this.leaveReal) return "real";
    return this.decision.label(p);
  }
}

const nothing = () => ({ steps: 0, shares: 0, logits: 0, last: 0 });

function add(sums, logit, share) {
  sums.steps += 1;
  sums.shares += share;
  sums.logits += share * logit;
  sums.last = logit;
  return sums;
}

const together = (entries) =>
  entries.reduce((sums, { logit, share }) => add(sums, logit, share), nothing());

/** Scores of one person; its memory does not grow with the length of the stream. */
export class PersonHistory {
  /** @param rules The `decision` of `rules.json`. */
  constructor(track, decision, step, rules) {
    this.track = track;
    this.decision = decision;
    this.step = step;
    this.rules = rules;
    this.sums = nothing();
    this.window = [];
    this.hysteresis = new Hysteresis(decision, rules);
    this.intervals = [];
    this.liveP = null;
    this.liveLabel = "unsure";
  }

  get isLong() {
    return this.sums.steps >= this.decision.spec.min_steps;
  }

  /** Adds a judged step. */
  add(time, frameLogit, stepLogit, detail = Infinity) {
    const { decision } = this;
    const logit = decision.choose(frameLogit, stepLogit);
    const share = decision.share(detail);
    add(this.sums, logit, share);
    this.window.push({ time, logit, share });
    const oldest = time - decision.spec.window_s;
    this.window = this.window.filter((entry) => entry.time > oldest);
    this.extendIntervals(time);
    this.liveP = decision.pPerson(together(this.window));
    if (this.isLong) this.liveLabel = this.hysteresis.update(this.liveP, time);
  }

  /** The verdict over all judged steps so far. */
  verdict(end = Infinity) {
    const { steps } = this.sums;
    const found = { track: this.track, label: "unsure", p_fake: null, judged_steps: steps };
    if (!steps) return { ...found, intervals: [] };
    const p = this.decision.pPerson(this.sums);
    const intervals = this.intervals.map(([from, to]) => [from, Math.min(to, end)]);
    const label = this.isLong ? this.decision.label(p) : "unsure";
    return { ...found, label, p_fake: p, intervals };
  }

  /** Adds the last second to the intervals when its mean score is fake. */
  extendIntervals(time) {
    const recent = this.window.filter((entry) => entry.time > time - this.rules.intervalWindowS);
    if (!this.isLong || this.decision.pPerson(together(recent)) < this.decision.fakeThreshold) return;
    let start = recent[0].time;
    const last = this.intervals.at(-1);
    if (last && start <= last[1] + this.step) start = Math.min(start, this.intervals.pop()[0]);
    this.intervals.push([start, time + this.step]);
  }
}
