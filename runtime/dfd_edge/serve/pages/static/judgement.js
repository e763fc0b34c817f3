// The page of one judgement: progress while it is judged, then the verdict.

import { STATES, ask, askWith, left, listen, say, trying } from "/static/api.js";
import { players } from "/static/player.js";

const on = (id, kind, handle) => document.getElementById(id)?.addEventListener(kind, handle);

const waiting = document.getElementById("waiting");
const judgement = JSON.parse((waiting || document.querySelector(".player")).dataset.judgement);
const self = judgement.links.self;

// Waits for the verdict; the page is then fetched anew, with the verdict in focus.
const wait = () => {
  let state = judgement.state;
  const show = (progress) => {
    const bar = document.getElementById("progress");
    const known = progress && progress.total_s;
    if (known) {
      bar.max = progress.total_s;
      bar.value = progress.done_s;
    }
    document.getElementById("left").textContent = progress ? left(progress.left_s) : "";
  };
  show(judgement.progress);
  const source = listen(judgement.links.events, {
    progress: show,
    state: (now) => {
      if (now.state !== state) say(STATES[now.state]);
      state = now.state;
      if (!["queued", "running"].includes(state)) {
        source.close();
        location.replace(`${location.pathname}#verdict`);
        location.reload();
      }
      document.getElementById("state-name").textContent = STATES[state];
    },
  });
};

if (waiting && ["queued", "running"].includes(judgement.state)) wait();
if (location.hash === "#verdict") document.getElementById("verdict")?.focus();

const [player] = players();
for (const button of document.querySelectorAll("[data-go]"))
  button.addEventListener("click", () => {
    player.goTo(Number(button.dataset.go));
    const stage = player.box.getBoundingClientRect();
    if (stage.top < 0 || stage.top > innerHeight / 2) player.box.scrollIntoView();
    say(`Now at ${button.textContent.trim().replace("Go to ", "")}`);
  });

on("cancel", "click", () => trying(() => ask(`${self}/cancel`, { method: "POST" })));
on("print", "click", () => print());
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
on("note-form", "submit", (event) => {
  event.preventDefault();
  trying(async () => {
    await askWith("PATCH", self, { note: document.getElementById("note").value });
    say("The note is saved.");
  });
});
on("delete", "click", () => {
  if (!confirm(`Delete the record of ${judgement.name} and its file? This cannot be undone.`)) return;
  trying(async () => {
    await ask(self, { method: "DELETE" });
    location.assign("/");
  });
});
on("again", "click", () =>
  trying(async () => {
    say("Sending the file to be judged anew.");
    const file = await fetch(judgement.links.media);
    const name = encodeURIComponent(judgement.name);
    const answer = await ask(`/v1/judgements?again=true&name=${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: await file.blob(),
    });
    location.assign(`/judgements/${answer.id}`);
  }),
);
const again = document.getElementById("again");
if (again) again.disabled = !judgement.media_kept;
