/** The frames that are due, and the consecutive ones that come with them. */

/** Picks frames at a rate from a stream of timestamps, as `sources/frames.py` does. */
export class Sampler {
  /**
   * @param rate Frames a second.
   * @param rules The `sampling` of `rules.json`.
   */
  constructor(rate, rules) {
    this.period = 1 / rate;
    this.rules = rules;
    this.last = null;
    this.next = 0;
  }

  /** Whether the frame at a time in seconds is due; counts it. */
  isDue(time) {
    const { period } = this;
    if (this.last === null || time < this.last - period) {
      this.startGrid(time);
      return true;
    }
    if (time < this.next - this.rules.earlyTolerance * period) return false;
    if (time < this.last + this.rules.minSpacing * period) return false;
    if (time >= this.next + period) this.startGrid(time);
    else {
      this.last = time;
      this.next += period;
    }
    return true;
  }

  /** An independent copy, to ask about frames that are still to come. */
  foresee() {
    return Object.assign(Object.create(Sampler.prototype), this);
  }

  startGrid(time) {
    this.last = time;
    this.next = time + this.period;
  }
}

/** Says which frames are part of a burst: the due one and those before it, foreseen by the step. */
export class ForeseenBursts {
  constructor(sampler, rules) {
    this.sampler = sampler;
    this.rules = rules;
    this.last = NaN;
    this.held = 0;
  }

  /**
   * Whether the next frame is to be kept; call it once a frame, and `interrupt` where frames were
   * lost before it.
   */
  wants(time, due) {
    const step = time - this.last;
    this.last = time;
    if (step > 0 && step <= this.rules.burstStepS) {
      if (due && this.held >= this.rules.burstFrames - 1) return this.hold();
      const ahead = this.sampler.foresee();
      if (this.rules.stepsAhead.some((steps) => ahead.isDue(time + steps * step))) {
        return this.hold();
      }
    }
    this.interrupt();
    return false;
  }

  hold() {
    this.held = Math.min(this.held + 1, this.rules.burstFrames);
    return true;
  }

  /** Notes that a wanted frame did not come. */
  interrupt() {
    this.held = 0;
  }
}

/** The luma of the last consecutive frames. */
export class RecentPlanes {
  constructor(rules) {
    this.rules = rules;
    this.frames = [];
  }

  /** Keeps the luma of a frame; returns the burst that ends with it, or null. */
  keep(plane, time) {
    const last = this.frames.at(-1);
    if (last && (last.plane.width !== plane.width || last.plane.height !== plane.height)) {
      this.interrupt();
    }
    this.frames.push({ plane, time });
    const { burstFrames, burstStepS } = this.rules;
    if (this.frames.length > burstFrames) this.frames.shift();
    if (this.frames.length < burstFrames) return null;
    const follows = this.frames.every(({ time: after }, i) => {
      const step = i ? after - this.frames[i - 1].time : burstStepS;
      return step > 0 && step <= burstStepS;
    });
    return follows ? this.frames.map((frame) => frame.plane) : null;
  }

  /** Notes that the next frame does not directly follow the last one. */
  interrupt() {
    this.frames = [];
  }
}
