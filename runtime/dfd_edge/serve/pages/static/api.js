// Requests to the service, and small helpers that every page needs.

export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

const refusal = async (answer) => {
  try {
    return new Refused(await answer.json());
  } catch {
    return new Refused({ title: `The service answered ${answer.status}`, status: answer.status });
  }
};

// Returns the parsed answer, or null where there is none; throws `Refused` with the problem.
export const ask = async (address, options = {}) => {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Refused({ title: "The service does not answer. Is it still running?" });
  }
  if (!answer.ok) throw await refusal(answer);
  if (answer.status === 204) return null;
  return /json(;|$)/.test(answer.headers.get("content-type")) ? answer.json() : answer.text();
};

export const askWith = (method, address, body) =>
  ask(address, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

// Hands in one file; `onSent` is called with the share that has been sent.
export const handIn = (file, name, onSent, signal) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/judgements");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onSent(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const answer = request.response || { title: `The service answered ${request.status}` };
      if (request.status < 300) resolve(answer);
      else reject(new Refused(answer));
    });
    const lost = { title: "The connection broke off while the file was sent" };
    request.addEventListener("error", () => reject(new Refused(lost)));
    request.addEventListener("abort", () => reject(new Refused({ title: "Cancelled" })));
    signal.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file, name);
    request.send(form);
  });

// Calls handlers with the parsed data of server-sent events. The browser connects again by itself.
export const listen = (address, handlers) => {
  const source = new EventSource(address);
  for (const [kind, handle] of Object.entries(handlers)) {
    if (kind === "open" || kind === "error") source.addEventListener(kind, handle);
    else source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  }
  addEventListener("pagehide", () => source.close());
  return source;
};

export const NAMES = { fake: "Fake", real: "Real", unsure: "Unsure", no_face: "No face" };
const SYMBOLS = { fake: "▲", real: "●", unsure: "?", no_face: "○" };
export const STATES = {
  queued: "Waiting",
  running: "Being judged",
  done: "Done",
  failed: "Not judged",
  cancelled: "Cancelled",
};

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

const drawn = (style, symbol, name) =>
  element("span", { class: `badge ${style}` }, element("span", { "aria-hidden": "true" }, symbol), ` ${name}`);
export const badge = (label) =>
  drawn(label, SYMBOLS[label] || "✕", NAMES[label] || STATES[label] || label);
// The badge of what a file says of its origin, as the server names its parts.
export const originBadge = ({ style, symbol, name }) => drawn(`${style} small`, symbol, name);

export const clock = (seconds) => {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${(tenths / 10).toFixed(1)} s`;
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${rest} min`;
};

export const left = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 5) return "a few seconds left";
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} seconds left`;
  return `about ${Math.round(seconds / 60)} minutes left`;
};

export const when = (text) =>
  new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

// Writes a line that screen readers read out. What is not wrong is taken back after a while.
const SAID_MS = 12000;
let taking;
export const say = (text, wrong = false) => {
  const line = document.getElementById("said");
  line.classList.toggle("wrong", wrong);
  line.textContent = text;
  clearTimeout(taking);
  if (!wrong) taking = setTimeout(() => (line.textContent = ""), SAID_MS);
};

// Does something, and says what was wrong where it is refused.
export const trying = async (action) => {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message, true);
    return undefined;
  }
};
