// The start page: handing in, the queue, and the history with its search.

import {
  NAMES,
  Refused,
  STATES,
  ask,
  askWith,
  badge,
  element,
  handIn,
  left,
  listen,
  originBadge,
  say,
  trying,
  when,
} from "/static/api.js";

const AT_ONCE = 2;
const PAGE = 20;
const byId = (id) => document.getElementById(id);
const queue = byId("queue");
const table = byId("history");
const origins = JSON.parse(table.dataset.origins);
const active = new Map();
let cursor = null;
const mine = new Set();

const showQueue = () => {
  byId("queue-section").hidden = !active.size;
  const order = (one) => (one.state === "running" ? 0 : one.position || 1e9);
  const entries = [...active.values()].sort((a, b) => order(a) - order(b));
  queue.replaceChildren(...entries.map(entryOf));
};

const aboutOf = (one) => {
  if (one.state === "queued") {
    const place = one.position ? `Waiting, number ${one.position}` : "Waiting";
    const rest = left(one.starts_in_s).replace(" left", "");
    return rest ? `${place}, starts in ${rest}` : place;
  }
  const rest = one.progress ? left(one.progress.left_s) : "";
  return rest ? `Being judged, ${rest}` : "Being judged";
};

// The entries are updated in place, so that a button keeps the focus while progress comes.
const rows = new Map();
const entryOf = (one) => {
  let row = rows.get(one.id);
  if (!row) {
    const cancel = element("button", { type: "button", "aria-label": `Cancel ${one.name}` }, "Cancel");
    cancel.addEventListener("click", () =>
      trying(() => ask(`${one.links.self}/cancel`, { method: "POST" })),
    );
    const bar = element("progress", { "aria-label": `Progress of ${one.name}`, max: 1 });
    const about = element("span", { class: "about" });
    const link = element("a", { href: `/judgements/${one.id}`, class: "name" }, one.name);
    row = { item: element("li", {}, element("div", {}, link, element("br"), about), cancel, bar), bar, about };
    rows.set(one.id, row);
  }
  row.about.textContent = aboutOf(one);
  row.bar.hidden = one.state !== "running";
  const { progress } = one;
  if (progress && progress.total_s) row.bar.value = Math.min(1, progress.done_s / progress.total_s);
  else row.bar.removeAttribute("value");
  return row.item;
};

// The badge of a file's own statement, apart from that of the verdict; most files have none.
const statedBy = (one) => {
  const outcome = one.provenance?.outcome;
  return outcome && outcome !== "nothing" ? [" ", originBadge(origins[outcome])] : [];
};

const historyRow = (one) => {
  const link = element("a", { href: `/judgements/${one.id}`, class: "name" }, one.name);
  const shown = one.state === "done" ? badge(one.verdict.label) : badge(one.state);
  const cells = [
    element("th", { scope: "row" }, link),
    element("td", {}, shown, ...statedBy(one)),
    element("td", { "data-name": "Added", class: "number" }, when(one.submitted_at)),
    element("td", one.note ? { "data-name": "Note" } : {}, one.note.slice(0, 120)),
  ];
  const pick = element("td");
  if (one.state === "done") {
    const box = element("input", { type: "checkbox", value: one.id, "aria-label": `Compare ${one.name}` });
    box.addEventListener("change", allowCompare);
    pick.append(element("label", {}, box, " Compare"));
  }
  return element("tr", { "data-id": one.id }, ...cells, pick);
};

const picked = () => [...table.querySelectorAll("input:checked")].map((box) => box.value);
const allowCompare = () => (byId("compare").disabled = picked().length !== 2);

const search = async (older = false) => {
  const wanted = new URLSearchParams({ q: byId("q").value, limit: PAGE });
  if (byId("label").value) wanted.set("label", byId("label").value);
  if (older && cursor !== null) wanted.set("before", cursor);
  const answer = await ask(`/v1/judgements?${wanted}`);
  const finished = answer.judgements.filter((one) => !["queued", "running"].includes(one.state));
  if (!older) table.replaceChildren();
  table.append(...finished.map(historyRow));
  cursor = answer.next;
  byId("more").hidden = cursor === null;
  const searched = byId("q").value || byId("label").value;
  byId("nothing").textContent = searched ? "Nothing was found." : "Nothing here yet.";
  byId("nothing").hidden = table.children.length > 0;
  allowCompare();
  return table.children.length;
};

const take = (one) => {
  if (["queued", "running"].includes(one.state)) {
    active.set(one.id, { ...one, progress: one.progress || active.get(one.id)?.progress || null });
  } else {
    const known = active.delete(one.id);
    rows.delete(one.id);
    if (known && mine.delete(one.id)) announce(one);
    if (known) trying(search);
  }
  showQueue();
};

const forget = ({ id }) => {
  active.delete(id);
  rows.delete(id);
  showQueue();
  table.querySelector(`[data-id="${id}"]`)?.remove();
};

const announce = (one) => {
  if (one.state === "done") say(`${one.name}: ${NAMES[one.verdict.label]}`);
  else if (one.state === "failed") say(one.error.detail, true);
  else say(`${one.name}: ${STATES[one.state].toLowerCase()}`);
};

const refreshQueue = async () => {
  const found = await Promise.all(
    ["running", "queued"].map((state) => ask(`/v1/judgements?state=${state}&limit=100`)),
  );
  active.clear();
  for (const one of found.flatMap((answer) => answer.judgements)) active.set(one.id, one);
  showQueue();
};

// Files are sent a few at a time, in the order in which they were chosen.
const waiting = [];
let sending = 0;

const send = (files) => {
  const media = files.filter(({ file }) => file.size > 0);
  if (!media.length) say("There is no file in that.", true);
  waiting.push(...media);
  while (sending < AT_ONCE && waiting.length) sendNext();
};

const sendNext = async () => {
  const { file, name } = waiting.shift();
  sending += 1;
  const abort = new AbortController();
  const cancel = element("button", { type: "button", "aria-label": `Do not send ${name}` }, "Cancel");
  cancel.addEventListener("click", () => abort.abort());
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Sending ${name}` });
  const item = element("li", {}, element("span", { class: "name" }, `Sending ${name}`), cancel, bar);
  byId("uploads").append(item);
  try {
    const one = await handIn(file, name, (share) => (bar.value = share), abort.signal);
    received(one, name);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(`${name}: ${error.message}`, true);
  } finally {
    item.remove();
    sending -= 1;
    if (waiting.length) sendNext();
  }
};

const received = (one, name) => {
  if (one.state === "done") {
    say(`${name}: judged before, ${NAMES[one.verdict.label]}`);
    trying(search);
    return;
  }
  mine.add(one.id);
  active.set(one.id, one);
  say(`${name}: added`);
  take(one);
};

const inFolder = async (entry) => {
  if (entry.isFile)
    return new Promise((resolve) =>
      entry.file((file) => resolve([{ file, name: file.name }]), () => resolve([])),
    );
  const reader = entry.createReader();
  const found = [];
  // A reader gives some entries at a time, and none at the end.
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return found;
    for (const one of some) found.push(...(await inFolder(one)));
  }
};

const isMedia = ({ file }) =>
  /^(video|image)\//.test(file.type) || /\.(mkv|ts|mts|m2ts|avi|flv|wmv|heic|avif|mjpe?g)$/i.test(file.name);

const area = byId("drop");
for (const kind of ["dragenter", "dragover"])
  area.addEventListener(kind, (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, () => area.classList.remove("over"));
area.addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const found = (await Promise.all(entries.map(inFolder))).flat();
  // Of a folder, what is no media is passed over; single files are sent as they are.
  send(entries.some((entry) => entry.isDirectory) ? found.filter(isMedia) : found);
});
// Beside the area, a file that is dropped must not replace the page.
for (const kind of ["dragover", "drop"])
  addEventListener(kind, (event) => {
    if ([...event.dataTransfer.types].includes("Files")) event.preventDefault();
  });
for (const id of ["files", "folder"])
  byId(id).addEventListener("change", (event) => {
    const files = [...event.target.files].map((file) => ({ file, name: file.name }));
    send(id === "folder" ? files.filter(isMedia) : files);
    event.target.value = "";
  });
byId("address-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const box = byId("address");
  trying(async () => {
    say(`Fetching ${box.value}`);
    received(await askWith("POST", "/v1/judgements", { address: box.value }), box.value);
    box.value = "";
  });
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  trying(async () => {
    const found = await search();
    say(found ? `${found} found` : "Nothing was found.");
  });
});
byId("more").addEventListener("click", () => trying(() => search(true)));
byId("compare-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [a, b] = picked();
  location.assign(`/compare?a=${a}&b=${b}`);
});

trying(search);
listen("/v1/events", {
  open: () => trying(refreshQueue),
  state: take,
  deleted: forget,
  progress: (progress) => {
    const one = active.get(progress.id);
    if (!one) return;
    one.progress = progress;
    showQueue();
  },
});
