/** One picture in a person's hands: its pixels, what was chosen and drawn so far, and the time it took. */

import { Clock } from "./clock.js";
import { Mask, enlarged, fromRuns } from "./mask.js";

export const PERCENT = 50;

/** Where the map on the screen came from, whether a hand touched it, and the clicks of the rule that made it. */
const NOTHING = Object.freeze({ origin: null, touched: false, hidden: false, points: [], box: null });

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

let worker = null;
const waiting = new Map();

function load(message) {
  if (!worker) {
    worker = new Worker(new URL("loader.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => {
      waiting.get(data.id)?.(data);
      waiting.delete(data.id);
    };
  }
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  return new Promise((done) => {
    waiting.set(id, done);
    worker.postMessage({ id, ...message });
  });
}

export class Work {
  constructor(picture, saved) {
    Object.assign(this, picture);
    this.picture = picture;
    this.label = saved?.label ?? picture.given?.label ?? null;
    this.note = saved?.note ?? "";
    this.reason = saved?.skipped ? saved.reason : "";
    this.skipped = saved?.skipped ?? false;
    this.classSeconds = saved?.class_seconds ?? null;
    this.strokeSeconds = saved?.stroke_seconds ?? null;
    this.clock = new Clock(saved?.seconds ?? 0, saved?.idle ?? 0);
    this.percent = PERCENT;
    this.levels = [];
    this.state = NOTHING;
    this.first = saved?.runs && !saved.skipped ? saved : null;
    if (this.first) {
      const kind = saved.kind;
      const origin = { drawn: null, corrected: "model", accepted: "model" };
      this.state = { ...NOTHING, origin: kind in origin ? origin[kind] : kind, touched: kind === "corrected" };
      // Whose map was shown is not saved: without a class it was the model's first guess.
    } else if (saved) this.state = { ...NOTHING, hidden: true };
    else if (this.suggestion !== null) this.state = { ...NOTHING, origin: "model" };
    this.grids = new Map();
  }

  /** Return the class whose map the model proposes here: the one chosen, or else the largest. */
  get proposed() {
    const { suggested } = this;
    if (!suggested?.classes.length) return null;
    if (this.label !== null) return suggested.classes.includes(this.label) ? this.label : null;
    return suggested.classes[suggested.shares.indexOf(Math.max(...suggested.shares))];
  }

  get suggestion() {
    const at = this.wants_map ? this.suggested?.classes.indexOf(this.proposed) : -1;
    return at >= 0 ? at : null;
  }

  grid() {
    const at = this.suggestion;
    if (!this.grids.has(at)) this.grids.set(at, bytes(this.suggested.values[at]));
    const { width, height } = this.suggested;
    return { values: this.grids.get(at), width, height, percent: this.percent };
  }

  /** True while the model's map is on the screen as it is. */
  get untouched() {
    return this.state.origin === "model" && !this.state.touched;
  }

  /** True if a hand or a rule made the map on the screen. */
  get own() {
    const { origin, touched } = this.state;
    return touched || ![null, "model"].includes(origin) || (origin === null && this.mask.any);
  }

  /** Fetch and decode the picture and the map to begin with. Return false while the server is away. */
  async load(room) {
    const { key, width, height } = this;
    const grid = !this.first && this.untouched ? this.grid() : null;
    const reply = await load({ key, width, height, room, runs: this.first?.runs, grid });
    if (reply.away) return false;
    if (this.closed) reply.levels.forEach((level) => level.bitmap.close());
    else {
      this.levels = reply.levels;
      this.error = reply.error;
      this.mask = new Mask(width, height, reply.mask);
      if (!this.first && !this.wants_map) this.state = NOTHING;
    }
    this.first = null;
    return true;
  }

  close() {
    this.closed = true;
    this.levels.forEach((level) => level.bitmap.close());
    this.levels = [];
    this.mask = null;
    this.grids.clear();
  }

  /** Put the model's map of the class on the screen, or an empty one where the model has none. */
  propose() {
    const has = this.suggestion !== null && !this.state.hidden;
    this.state = { ...NOTHING, hidden: this.state.hidden, origin: has ? "model" : null };
    const { width, height } = this;
    if (has) {
      const grid = this.grid();
      this.mask.replace(enlarged(grid.values, grid.width, grid.height, width, height, grid.percent));
    } else this.mask.replace(new Uint8Array(width * height));
  }

  /** Change the pixels in one undo step. `state` says what the map is afterwards. */
  change(draw, state = {}) {
    this.mask.begin(this.state);
    draw(this.mask);
    return this.commit(state);
  }

  /** Close the open step. A stroke that changed no pixel is none. */
  commit(state = {}) {
    const next = { ...this.state, touched: true, ...state };
    const same = Object.keys(next).every((name) => next[name] === this.state[name]);
    if (!this.mask.settle() && (same || !Object.keys(state).length)) {
      this.mask.step = null;
      return false;
    }
    if (!same) this.state = next;
    this.mask.end(this.state);
    return true;
  }

  fromRule(origin, runs, points, box) {
    const data = fromRuns(runs, this.width, this.height);
    return this.change((mask) => mask.replace(data), { origin, touched: false, points, box });
  }

  undo(redo) {
    const state = redo ? this.mask.redo() : this.mask.undo();
    if (!state) return false;
    this.state = state;
    return true;
  }

  /** Describe all in the words of the server. */
  saved() {
    const any = this.wants_map && this.mask?.any;
    const { origin, touched } = this.state;
    const made = { model: "accepted", box: "box", points: "points" }[origin];
    const kind = !any ? null : origin === null ? "drawn" : touched ? "corrected" : made;
    const round = (seconds) => Math.round(seconds * 1000) / 1000;
    return {
      label: this.label,
      skipped: false,
      reason: "",
      note: this.note,
      kind,
      runs: any ? this.mask.runs() : null,
      seconds: round(this.clock.seconds),
      idle: round(this.clock.rest),
      class_seconds: this.classSeconds,
      stroke_seconds: this.strokeSeconds,
    };
  }
}
