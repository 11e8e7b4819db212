/** The seconds that a person worked on one picture. */

const PATIENCE = 30;
const now = () => performance.now() / 1000;

export class Clock {
  constructor(active = 0, idle = 0) {
    this.active = active;
    this.idle = idle;
    this.last = null;
    this.hidden = false;
  }

  start() {
    this.last = now();
    this.hidden = document.hidden;
  }

  stop() {
    this.tick();
    this.last = null;
  }

  /** Count the time since the last sign of life. Only its first 30 seconds are work. */
  tick() {
    if (this.last === null) return;
    const gap = now() - this.last;
    const active = this.hidden ? 0 : Math.min(gap, PATIENCE);
    this.active += active;
    this.idle += gap - active;
    this.last += gap;
  }

  show(hidden) {
    this.tick();
    this.hidden = hidden;
  }

  /** Return the seconds of work until now. */
  get seconds() {
    const gap = this.last === null || this.hidden ? 0 : now() - this.last;
    return this.active + Math.min(gap, PATIENCE);
  }

  get rest() {
    const gap = this.last === null ? 0 : now() - this.last;
    return this.idle + (this.hidden ? gap : Math.max(0, gap - PATIENCE));
  }
}
