// Draws boxes, scores and the evidence of a judged frame over a video or a photograph.

const COLOURS = { fake: "#e14614", real: "#1482be", unsure: "#ebc83c", no_face: "#a0a0a0" };
const STRONG_LOGIT = 4;
const ALPHA = 0.65;
const FRAMED_SHARE = 0.5;
const GRID = 48;

const dark = (label) => label === "unsure" || label === "no_face";

// The frame that is shown at a time; boxes between two judged frames lie between theirs.
export const frameAt = (frames, time, step) => {
  const next = frames.findIndex((frame) => frame.time_s > time + 0.02);
  const index = (next < 0 ? frames.length : next) - 1;
  if (index < 0) return frames.length && frames[0].time_s - time < step ? frames[0] : null;
  const frame = frames[index];
  if (time - frame.time_s > 1.6 * step) return null;
  const later = frames[index + 1];
  if (!later || later.time_s - frame.time_s > 1.6 * step) return frame;
  const share = Math.max(0, (time - frame.time_s) / (later.time_s - frame.time_s));
  const people = frame.people.map((person) => {
    const other = later.people.find((one) => one.track === person.track);
    if (!other) return person;
    const box = person.box.map((side, n) => side + share * (other.box[n] - side));
    return { ...person, box };
  });
  return { ...frame, people };
};

// Values of a small map in between: bilinear, `size` a side.
const enlarged = (values, rows, columns, size) => {
  const grid = new Float32Array(size * size);
  for (let y = 0; y < size; y++) {
    const v = Math.min(Math.max(((y + 0.5) * rows) / size - 0.5, 0), rows - 1);
    const top = Math.min(Math.floor(v), Math.max(rows - 2, 0));
    for (let x = 0; x < size; x++) {
      const u = Math.min(Math.max(((x + 0.5) * columns) / size - 0.5, 0), columns - 1);
      const left = Math.min(Math.floor(u), Math.max(columns - 2, 0));
      const at = (row, column) =>
        values[Math.min(row, rows - 1) * columns + Math.min(column, columns - 1)];
      const upper = at(top, left) * (1 - u + left) + at(top, left + 1) * (u - left);
      const lower = at(top + 1, left) * (1 - u + left) + at(top + 1, left + 1) * (u - left);
      grid[y * size + x] = upper * (1 - v + top) + lower * (v - top);
    }
  }
  return grid;
};

// As the annotated videos have it: tinted in proportion, outlined where it is more than half.
const layEvidence = (pen, entry, scale) => {
  const [x0, y0, side] = entry.crop.map((value) => value * scale);
  const values = entry.values.flat();
  const strongest = Math.max(...values);
  if (strongest <= 0) return;
  const most = Math.max(strongest, STRONG_LOGIT);
  const shares = values.map((value) => Math.min(Math.max(value / most, 0), 1));
  const grid = enlarged(shares, entry.values.length, entry.values[0].length, GRID);
  const tint = new OffscreenCanvas(GRID, GRID);
  const tintPen = tint.getContext("2d");
  const image = tintPen.createImageData(GRID, GRID);
  grid.forEach((share, n) => image.data.set([225, 70, 20, Math.round(255 * ALPHA * share)], 4 * n));
  tintPen.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(tint, x0, y0, side, side);
  const cell = side / GRID;
  const strong = (x, y) => x >= 0 && y >= 0 && x < GRID && y < GRID && grid[y * GRID + x] > FRAMED_SHARE;
  pen.beginPath();
  for (let y = 0; y <= GRID; y++)
    for (let x = 0; x <= GRID; x++) {
      const here = strong(x, y);
      if (here !== strong(x - 1, y)) {
        pen.moveTo(x0 + x * cell, y0 + y * cell);
        pen.lineTo(x0 + x * cell, y0 + (y + 1) * cell);
      }
      if (here !== strong(x, y - 1)) {
        pen.moveTo(x0 + x * cell, y0 + y * cell);
        pen.lineTo(x0 + (x + 1) * cell, y0 + y * cell);
      }
    }
  for (const [colour, width] of [["#181818", 3], ["#ffffff", 1]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.stroke();
  }
};

const tag = (person) => {
  if (!person.judged) return `#${person.track} ${person.reason || "not judged"}`;
  const score = person.p_fake === null ? person.p_frame : person.p_fake;
  return `#${person.track} ${person.label}${score === null ? "" : ` ${score.toFixed(2)}`}`;
};

const drawPerson = (pen, person, scale, width) => {
  const [x0, y0, x1, y1] = person.box.map((side) => side * scale);
  const label = person.judged ? person.label : "no_face";
  for (const [colour, line] of [["#181818", 5], [COLOURS[label], 3]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.setLineDash(person.judged ? [] : [6, 4]);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  pen.setLineDash([]);
  const text = tag(person);
  const wide = pen.measureText(text).width + 10;
  const left = Math.min(Math.max(0, x0 - 2), Math.max(0, width - wide));
  const top = y0 >= 22 ? y0 - 22 : y1 + 2;
  pen.fillStyle = COLOURS[label];
  pen.fillRect(left, top, wide, 20);
  pen.fillStyle = dark(label) ? "#181818" : "#ffffff";
  pen.fillText(text, left + 5, top + 15);
};

// Draws a frame into a canvas that covers `media`. `evidence` has the maps of each time.
export const draw = (canvas, media, frame, evidence, shows) => {
  const natural = media.videoWidth || media.naturalWidth || 0;
  const stage = canvas.parentElement.getBoundingClientRect();
  const area = media.getBoundingClientRect();
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(stage.width * ratio);
  canvas.height = Math.round(stage.height * ratio);
  if (!natural || !frame) return 0;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, (area.left - stage.left) * ratio, (area.top - stage.top) * ratio);
  pen.font = "600 14px system-ui, sans-serif";
  const scale = area.width / natural;
  const found = shows.evidence ? evidence.get(frame.time_s) || [] : [];
  for (const entry of found) layEvidence(pen, entry, scale);
  if (shows.boxes) for (const person of frame.people) drawPerson(pen, person, scale, area.width);
  return frame.people.length;
};
