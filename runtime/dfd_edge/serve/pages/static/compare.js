// Two judgements side by side, their videos in step.

import { clock } from "/static/api.js";
import { players } from "/static/player.js";

const APART_S = 0.12;
const found = players();
const videos = () => found.filter((one) => one.isVideo && one.media);

const start = () => {
  const slider = document.getElementById("both");
  const play = document.getElementById("play");
  slider.max = Math.max(...found.map((one) => one.duration), 0.04);
  document.querySelector(".together").hidden = !found.some((one) => one.duration > 0);
  let now = 0;

  const show = (time) => {
    now = time;
    slider.value = time;
    slider.setAttribute("aria-valuetext", clock(time));
    document.getElementById("time").textContent = clock(time);
  };
  const go = (time) => {
    const to = Math.min(Math.max(time, 0), Number(slider.max));
    for (const one of found) if (one.duration > 0) one.goTo(to);
    show(to);
  };

  // The longer video leads; the other one is moved where it has drifted from it.
  const leader = () => videos().sort((a, b) => b.duration - a.duration)[0];
  const follow = () => {
    const first = leader();
    if (!first) return;
    const { currentTime, paused } = first.media;
    for (const other of videos()) {
      if (other === first) continue;
      const over = currentTime >= other.duration;
      if (over) other.media.pause();
      else if (Math.abs(other.media.currentTime - currentTime) > APART_S) other.media.currentTime = currentTime;
      if (!paused && !over && other.media.paused) other.media.play();
    }
    show(currentTime);
  };
  const playing = (is) => {
    play.setAttribute("aria-pressed", String(is));
    play.textContent = is ? "Pause both" : "Play both";
  };

  play.addEventListener("click", () => {
    const first = leader();
    if (!first) return;
    if (first.media.paused) {
      if (first.media.ended) go(0);
      first.media.play();
    } else for (const one of videos()) one.media.pause();
  });
  document.getElementById("back").addEventListener("click", () => go(now - 1));
  document.getElementById("on").addEventListener("click", () => go(now + 1));
  slider.addEventListener("input", () => go(Number(slider.value)));
  const first = leader();
  if (first) {
    first.media.addEventListener("timeupdate", follow);
    first.media.addEventListener("play", () => playing(true));
    for (const kind of ["pause", "ended"])
      first.media.addEventListener(kind, () => {
        playing(false);
        for (const one of videos()) one.media.pause();
      });
  }
  // Whichever timeline is clicked, both go there.
  for (const one of found)
    one.box.addEventListener("went", ({ detail }) => {
      if (Math.abs(detail - now) < 0.001) return;
      show(detail);
      for (const other of found) if (other !== one && other.duration > 0) other.goTo(detail);
    });
};

if (found.length === 2) start();
