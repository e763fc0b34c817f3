/** Texts of verdicts, word for word those of a report (`report/words.py`). */

/** Python's `f"{value:.2f}"`: JavaScript rounds the same decimal digits, except for ties. */
const fixed = (value, digits) => value.toFixed(digits);

/** A probability with two digits, or four where two would hide the side of a threshold. */
export function score(p, decision) {
  if (p === null) return "-";
  const short = fixed(p, 2);
  const limits = Object.values(decision.thresholds).map(({ probability }) => fixed(probability, 2));
  return ["0.00", "1.00", ...limits].includes(short) ? fixed(p, 4) : short;
}

/** A threshold with all its digits. */
export function threshold(decision, label) {
  return fixed(decision.thresholds[label].probability, 4).replace(/0+$/, "").replace(/\.$/, "");
}

/** A time as text: seconds, or minutes and seconds from a minute on. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${fixed(tenths / 10, 1)} s`;
  const rest = fixed((tenths % 600) / 10, 1);
  return `${Math.floor(tenths / 600)}:${rest.padStart(4, "0")} min`;
}

export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** A share in percent. */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** Explains the verdict on a source in a few sentences. */
export function verdictWords(verdict, decision, still) {
  const kind = still ? "picture" : "clip";
  if (verdict.label === "no_face") {
    return `No face was found, so there was nothing to judge. That does not make the ${kind} real.`;
  }
  if (verdict.p_fake === null) return tooLittle(verdict, decision, still);
  const value = score(verdict.p_fake, decision);
  const whose = verdict.people.length > 1 ? "The highest score of a person" : "The score";
  const [low, high] = [threshold(decision, "real"), threshold(decision, "fake")];
  if (verdict.label === "fake") {
    return (
      `${whose} is ${value}, at or above ${high}, where “fake” starts. The model sees traces ` +
      "that forged faces leave. It can be wrong: look at the crops below yourself."
    );
  }
  if (verdict.label === "real") {
    return (
      `${whose} is ${value}, at or below ${low}, up to which the answer is “real”. The model ` +
      "found no traces of the forgeries that it knows; others can pass it unseen."
    );
  }
  return (
    `${whose} is ${value}, between ${low} and ${high}. Both real and forged faces are found ` +
    "there, so the model does not decide."
  );
}

function tooLittle(verdict, decision, still) {
  if (still) return "A face was found, but it could not be judged; the reason is given below.";
  const most = Math.max(0, ...verdict.people.map((person) => person.judged_steps));
  return (
    `Too little was seen: ${count(most, "frame", "frames")} of one person could be judged, ` +
    `and a verdict needs ${decision.min_steps}.`
  );
}
