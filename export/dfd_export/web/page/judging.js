/** The worker that judges, as async functions. */

/**
 * Starts the worker through an address of this page's own making: such a worker keeps the page's
 * Content-Security-Policy, which one that is loaded from the server would not.
 */
export function confinedWorker(name) {
  const address = new URL(name, import.meta.url).href;
  const source = new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" });
  const own = URL.createObjectURL(source);
  return new Worker(own, { type: "module" });
}

export class Judge {
  constructor() {
    this.worker = confinedWorker("worker.js");
    this.number = 0;
    this.waiting = new Map();
    this.worker.addEventListener("message", ({ data }) => this.settle(data));
    this.worker.addEventListener("error", (event) => {
      const error = event.message || "the judging thread cannot be started";
      for (const number of [...this.waiting.keys()]) this.settle({ number, error });
    });
  }

  settle({ number, error, ...answer }) {
    const { resolve, reject } = this.waiting.get(number) ?? {};
    this.waiting.delete(number);
    if (error) reject?.(new Error(error));
    else resolve?.(answer);
  }

  ask(type, values = {}, moved = []) {
    this.number += 1;
    const { number } = this;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ type, number, ...values }, moved);
    });
  }

  /** Loads the graphs: `{config, provider, reason, threads}`. */
  load(gpu) {
    return this.ask("load", { base: new URL("./", import.meta.url).href, gpu });
  }

  /** Begins a new source. */
  start(still = false) {
    return this.ask("start", { still });
  }

  /** Judges a frame; its result, or null where it is not due. */
  async frame(values) {
    return (await this.ask("frame", values, [values.frame])).result;
  }

  /** The verdict so far, with the decision it was made by. */
  verdict(duration = null) {
    return this.ask("verdict", { duration });
  }
}
