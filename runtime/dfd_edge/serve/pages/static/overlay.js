// Draws boxes, scores and the evidence of a judged frame over a video or a photograph.

const COLOURS = { fake: "#e14614", real: "#1482be", unsure: "#ebc83c", no_face: "#a0a0a0" };
const TINT = [225, 70, 20];
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

// Weights of four neighbours for a place between the middle two: cubic, as OpenCV has them.
const A = -0.75;
const cubic = (t) => {
  const near = (x) => ((A + 2) * x - (A + 3)) * x * x + 1;
  const far = (x) => ((A * x - 5 * A) * x + 8 * A) * x - 4 * A;
  return [far(t + 1), near(t), near(1 - t), far(2 - t)];
};

// For each of `size` places along a side of `count` values: the first neighbour, and the weights.
const taps = (count, size) =>
  Array.from({ length: size }, (_, n) => {
    const at = ((n + 0.5) * count) / size - 0.5;
    return [Math.floor(at) - 1, cubic(at - Math.floor(at))];
  });

// A small map, enlarged to `size` a side.
const enlarged = (rows, size) => {
  const clamp = (n, count) => Math.min(Math.max(n, 0), count - 1);
  const wide = rows.map((row) =>
    taps(row.length, size).map(([first, weights]) =>
      weights.reduce((sum, w, n) => sum + w * row[clamp(first + n, row.length)], 0),
    ),
  );
  return taps(rows.length, size).map(([first, weights]) =>
    wide[0].map((_, x) =>
      weights.reduce((sum, w, n) => sum + w * wide[clamp(first + n, rows.length)][x], 0),
    ),
  );
};

// Calls `line` with the ends of each piece of the line at which a map crosses a level (marching
// squares). Beyond the map all is below it.
const contour = (grid, level, line) => {
  const size = grid.length;
  const at = (x, y) => (x < 0 || y < 0 || x >= size || y >= size ? level - 0.5 : grid[y][x]);
  for (let y = -1; y < size; y++)
    for (let x = -1; x < size; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const crossings = corners.flatMap(([x0, y0], n) => {
        const [x1, y1] = corners[(n + 1) % 4];
        const [from, to] = [at(x0, y0) - level, at(x1, y1) - level];
        if (from > 0 === to > 0) return [];
        const share = from / (from - to);
        return [[x0 + share * (x1 - x0), y0 + share * (y1 - y0)]];
      });
      for (let n = 0; n + 1 < crossings.length; n += 2) line(crossings[n], crossings[n + 1]);
    }
};

// As the annotated videos have it: tinted in proportion, outlined where it is more than half.
const layEvidence = (pen, entry, scale) => {
  const [x0, y0, side] = entry.crop.map((value) => value * scale);
  const strongest = Math.max(...entry.values.flat());
  if (strongest <= 0) return;
  const most = Math.max(strongest, STRONG_LOGIT);
  const clip = (value) => Math.min(Math.max(value, 0), 1);
  const grid = enlarged(entry.values.map((row) => row.map((value) => clip(value / most))), GRID);
  const tint = new OffscreenCanvas(GRID, GRID);
  const tintPen = tint.getContext("2d");
  const image = tintPen.createImageData(GRID, GRID);
  grid
    .flat()
    .forEach((share, n) => image.data.set([...TINT, Math.round(255 * ALPHA * clip(share))], 4 * n));
  tintPen.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(tint, x0, y0, side, side);
  const cell = side / GRID;
  pen.beginPath();
  contour(grid, FRAMED_SHARE, (from, to) => {
    pen.moveTo(x0 + (from[0] + 0.5) * cell, y0 + (from[1] + 0.5) * cell);
    pen.lineTo(x0 + (to[0] + 0.5) * cell, y0 + (to[1] + 0.5) * cell);
  });
  pen.lineCap = "round";
  for (const [colour, width] of [["#181818", 4], ["#ffffff", 1.5]]) {
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
