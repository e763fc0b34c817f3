/** Plays a video or a camera, and hands on the frames that are judged or compared. */

import { Gate } from "./judge/stream.js";

/** Frames to be judged under way before a file waits, and a camera's frames are left out. */
const MOST_UNDER_WAY = 2;
/** A step this many times the usual one of late means that a frame was lost before it. */
const LOST_STEP = 1.7;
const STEPS_KEPT = 30;

export class Player {
  /**
   * @param video The element, whose source is set.
   * @param config The site's configuration.
   * @param judge Async function of a frame; returns its result, or null where it is not due.
   * @param options `live`: a camera; `onResult` and `onEnd` are called.
   */
  constructor(video, config, judge, { live, onResult, onEnd, onTrouble }) {
    this.video = video;
    this.judge = judge;
    this.live = live;
    this.gate = new Gate(config);
    this.events = { onResult, onEnd, onTrouble };
    this.underWay = 0;
    this.dueUnderWay = 0;
    this.origin = null;
    this.judged = 0;
    this.leftOut = 0;
    this.presented = null;
    this.last = null;
    this.steps = [];
    this.interrupted = false;
    this.waits = false;
    this.ended = false;
    this.stopped = false;
    this.onVisibility = () => this.followVisibility();
    this.onEnded = () => this.end();
  }

  async start() {
    if (!this.video.requestVideoFrameCallback) {
      throw new Error("This browser does not hand on the frames of a video: use a newer one.");
    }
    document.addEventListener("visibilitychange", this.onVisibility);
    this.video.addEventListener("ended", this.onEnded, { once: true });
    this.video.requestVideoFrameCallback((now, details) => this.take(now, details));
    await this.video.play();
  }

  /** Ends it: no more frames are taken; those under way are still judged. */
  end() {
    if (this.ended) return;
    this.ended = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.video.removeEventListener("ended", this.onEnded);
    this.video.pause();
    this.finish();
  }

  /** Ends it without a word: what is still under way is of no use any more. */
  abandon() {
    const nothing = () => {};
    this.events = { onResult: nothing, onEnd: nothing, onTrouble: nothing };
    this.end();
  }

  finish() {
    if (this.ended && this.underWay === 0 && !this.stopped) {
      this.stopped = true;
      this.events.onEnd();
    }
  }

  take(now, details) {
    if (this.ended) return;
    this.video.requestVideoFrameCallback((...next) => this.take(...next));
    const clock = this.live ? (details.captureTime ?? now) / 1000 : details.mediaTime;
    if (this.live) this.origin ??= clock;
    const time = clock - (this.origin ?? 0);
    if (time === this.last) {
      // The same frame again, after a wait.
      this.presented = details.presentedFrames;
      return;
    }
    if (this.hasLost(time, details.presentedFrames)) this.interrupt();
    const { due, wanted } = this.gate.ask(time);
    const late = due && this.live && this.dueUnderWay >= MOST_UNDER_WAY;
    if (late) this.leftOut += 1;
    if (wanted || (due && !late)) this.send(time, due && !late, wanted);
    if (!wanted) this.interrupted = true;
  }

  /** Whether frames were left out before this one. */
  hasLost(time, presented) {
    const step = this.last === null ? 0 : time - this.last;
    const skipped = this.presented !== null && presented !== this.presented + 1;
    this.presented = presented;
    this.last = time;
    if (!(step > 0)) return step < 0;
    this.steps.push(step);
    if (this.steps.length > STEPS_KEPT) this.steps.shift();
    const usual = [...this.steps].sort((a, b) => a - b)[this.steps.length >> 1];
    return skipped || step > LOST_STEP * usual;
  }

  interrupt() {
    this.interrupted = true;
    this.gate.interrupt();
  }

  async send(time, due, wanted) {
    const { interrupted } = this;
    this.interrupted = false;
    this.underWay += 1;
    this.dueUnderWay += due;
    if (!this.live && this.dueUnderWay > MOST_UNDER_WAY) this.wait();
    try {
      const frame = await this.grab(time);
      const result = await this.judge({ frame, time, due, wanted, interrupted });
      if (result) {
        this.judged += 1;
        this.events.onResult(result);
      }
    } catch (error) {
      this.events.onTrouble(error);
      this.ended = true;
      this.video.pause();
    } finally {
      this.underWay -= 1;
      this.dueUnderWay -= due;
    }
    if (this.waits && this.dueUnderWay <= 1) this.goOn();
    this.finish();
  }

  /** The frame that is shown now. */
  grab(time) {
    if (!("VideoFrame" in window)) return createImageBitmap(this.video);
    return new VideoFrame(this.video, { timestamp: Math.round(time * 1e6) });
  }

  wait() {
    this.waits = true;
    this.video.pause();
  }

  goOn() {
    this.waits = false;
    if (!this.ended && !document.hidden) this.video.play().catch((e) => this.events.onTrouble(e));
  }

  /** A hidden page gets no frames: a file waits until it is seen again. */
  followVisibility() {
    if (this.live) return;
    if (document.hidden) this.video.pause();
    else this.goOn();
  }
}
