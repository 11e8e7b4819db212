/** What a mouse, a pen, a finger and the keyboard do on the picture. */

export const NAMES = {
  brush: "Brush",
  polygon: "Polygon",
  rectangle: "Rectangle",
  fill: "Fill",
  box: "Box",
  points: "Points",
  hand: "Move",
};
export const HELP = {
  brush: "Paint over the object.",
  polygon: "Click the corners. Close it with Enter.",
  rectangle: "Drag from one corner to the other.",
  fill: "Click a hole inside the outline.",
  box: "Drag a box around the object.",
  points: "Click on the object. Click beside it with Alt or the right button.",
  hand: "Drag the picture.",
};

const NEAR = 10;
const KEPT = 2000;

/** Remember the last durations of a kind of work, in milliseconds. */
export const times = { stroke: [], next: [] };

export function measured(kind, start) {
  times[kind].push(performance.now() - start);
  if (times[kind].length > KEPT) times[kind].splice(0, KEPT / 2);
}

export class Tools {
  /**
   * `can` says what the page allows: work() gives the picture in hand or null, began() and changed() hear of
   * strokes, rule(box, points) asks the server, say(text) tells the person.
   */
  constructor(view, ring, cross, can) {
    this.view = view;
    this.ring = ring;
    this.cross = cross;
    this.can = can;
    this.name = "brush";
    this.erases = false;
    this.radius = 12; // pixels of the page
    this.corners = [];
    this.gesture = null;
    this.space = false;
    this.pen = false;
    this.pointers = new Map();
    this.virtual = null;
    this.last = null;
    const { layer } = view;
    layer.addEventListener("pointerdown", (event) => this.down(event));
    layer.addEventListener("pointermove", (event) => this.move(event));
    layer.addEventListener("pointerup", (event) => this.up(event));
    layer.addEventListener("pointercancel", (event) => this.up(event, true));
    layer.addEventListener("pointerleave", () => this.placeRing(null));
    layer.addEventListener("contextmenu", (event) => event.preventDefault());
    layer.addEventListener("auxclick", (event) => event.preventDefault());
    layer.addEventListener("dblclick", () => this.close());
    layer.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  get work() {
    return this.can.work();
  }

  /** Return the brush's radius in pixels of the picture. */
  get reach() {
    return (this.radius * this.view.ratio) / this.view.scale;
  }

  choose(name) {
    this.stop();
    this.name = name;
    this.view.layer.dataset.tool = name;
    this.placeRing(this.at);
  }

  /** Give up what is begun and not finished. Return whether there was something. */
  stop() {
    const begun = this.gesture !== null || this.corners.length > 0;
    if (this.gesture?.stroke && this.work?.mask.step) {
      this.work.mask.cancel();
      this.view.update();
    }
    this.gesture = null;
    this.corners = [];
    this.virtualDown(false);
    this.sketch();
    return begun;
  }

  size(radius) {
    this.radius = Math.min(Math.max(radius, 1), 200);
    this.placeRing(this.at);
  }

  // Pointers

  down(event) {
    const { view } = this;
    view.rect = view.box.getBoundingClientRect();
    view.layer.focus({ preventScroll: true });
    this.hideCross();
    if (event.pointerType === "pen") this.pen = true;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    view.layer.setPointerCapture(event.pointerId);
    if (!this.work?.mask) return;
    if (event.pointerType === "touch" && this.pointers.size === 2) {
      this.stop();
      this.gesture = { pinch: true, ...this.span() };
      return;
    }
    if (this.gesture) return;
    const finger = event.pointerType === "touch" && this.pen;
    if (event.button === 1 || this.name === "hand" || this.space || finger) {
      event.preventDefault();
      this.gesture = { pan: event.pointerId, x: event.clientX, y: event.clientY };
      view.box.classList.add("grabbed");
      return;
    }
    if (event.button > 2 && event.button !== 5) return;
    const other = event.button === 2 || event.button === 5 || (event.altKey && this.name === "points");
    this.press(view.toPicture(event.clientX, event.clientY), other, event.pointerId);
    this.placeRing([event.clientX, event.clientY]);
  }

  move(event) {
    const start = performance.now();
    const { gesture, view } = this;
    const here = [event.clientX, event.clientY];
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, here);
    if (event.pointerType !== "touch") this.placeRing(here);
    if (gesture?.pinch) {
      if (this.pointers.size < 2) return;
      const now = this.span();
      view.pan(now.x - gesture.x, now.y - gesture.y);
      view.zoom(now.distance / gesture.distance, now.x, now.y);
      Object.assign(gesture, now);
    } else if (gesture?.pan === event.pointerId) {
      view.pan(event.clientX - gesture.x, event.clientY - gesture.y);
      gesture.x = event.clientX;
      gesture.y = event.clientY;
    } else if (gesture?.id === event.pointerId) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) this.drag(view.toPicture(part.clientX, part.clientY));
      if (gesture.stroke) {
        view.update();
        measured("stroke", start);
      }
    } else if (this.corners.length) this.sketch(view.toPicture(...here));
  }

  up(event, cancelled = false) {
    this.pointers.delete(event.pointerId);
    const { gesture } = this;
    if (gesture?.pinch) {
      if (!this.pointers.size) this.gesture = null;
    } else if (gesture?.pan === event.pointerId) {
      this.gesture = null;
      this.view.box.classList.remove("grabbed");
    } else if (gesture?.id === event.pointerId) {
      if (!cancelled) this.release();
      // A stroke that the system ends is kept: undo is there.
      else if (gesture.stroke) this.release();
      else this.stop();
    }
  }

  span() {
    const [a, b] = [...this.pointers.values()];
    return {
      x: (a[0] + b[0]) / 2,
      y: (a[1] + b[1]) / 2,
      distance: Math.max(10, Math.hypot(a[0] - b[0], a[1] - b[1])),
    };
  }

  wheel(event) {
    event.preventDefault();
    const step = event.deltaMode ? event.deltaY * 30 : event.deltaY;
    this.view.zoom(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX, event.clientY);
    this.placeRing([event.clientX, event.clientY]);
  }

  // The tools, in pixels of the picture

  press(point, other, id) {
    const { work } = this;
    const erase = this.erases !== other;
    if (this.name === "points") {
      const [x, y] = this.inside(point);
      this.can.began();
      this.can.rule(null, [...work.state.points, [x, y, erase ? 0 : 1]]);
    } else if (this.name === "brush") {
      this.can.began();
      const radius = this.reach;
      this.gesture = { id, stroke: true, erase, radius, at: point };
      this.last = { tool: "brush", erase, radius, points: [point] };
      work.mask.begin(work.state);
      work.mask.capsule(...point, ...point, radius, erase ? 0 : 1);
      this.view.update();
    } else if (this.name === "polygon") {
      this.can.began();
      const first = this.corners[0];
      const near = (NEAR * this.view.ratio) / this.view.scale;
      if (this.corners.length > 2 && Math.hypot(point[0] - first[0], point[1] - first[1]) < near) this.close();
      else {
        if (!this.corners.length) this.otherEnd = erase;
        const end = this.corners[this.corners.length - 1];
        if (!end || end[0] !== point[0] || end[1] !== point[1]) this.corners.push(point);
        this.sketch(point);
      }
    } else if (this.name === "fill") this.fill(point, erase);
    else {
      this.can.began();
      this.gesture = { id, erase, from: point, at: point };
    }
  }

  drag(point) {
    const { gesture } = this;
    if (gesture.stroke) {
      this.work.mask.capsule(...gesture.at, ...point, gesture.radius, gesture.erase ? 0 : 1);
      this.last.points.push(point);
    }
    gesture.at = point;
    if (!gesture.stroke) this.sketch();
  }

  release() {
    const { gesture, work } = this;
    this.gesture = null;
    this.sketch();
    if (gesture.stroke) {
      if (work.commit()) this.can.changed();
      return;
    }
    const [[x0, y0], [x1, y1]] = [gesture.from, gesture.at];
    if (Math.abs(x1 - x0) < 1 || Math.abs(y1 - y0) < 1) return;
    if (this.name === "box") {
      const [a, b] = [this.inside(gesture.from), this.inside(gesture.at)];
      const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
      this.can.rule(box, []);
      return;
    }
    this.last = { tool: "rectangle", erase: gesture.erase, points: [gesture.from, gesture.at] };
    this.draw((mask) => mask.rectangle(x0, y0, x1, y1, gesture.erase ? 0 : 1));
  }

  /** Close the polygon and fill it. Return whether there was one. */
  close() {
    const { corners } = this;
    if (!corners.length) return false;
    this.corners = [];
    this.sketch();
    if (corners.length < 3) this.can.say("A polygon needs three corners.");
    else {
      this.last = { tool: "polygon", erase: this.otherEnd, points: corners };
      this.draw((mask) => mask.polygon(corners, this.otherEnd ? 0 : 1));
    }
    return true;
  }

  /** Take the last corner away. Return whether there was one. */
  unpin() {
    if (!this.corners.length) return false;
    this.corners.pop();
    this.sketch();
    return true;
  }

  fill([px, py], erase) {
    const { mask } = this.work;
    const [x, y] = [Math.floor(px), Math.floor(py)];
    if (x < 0 || y < 0 || x >= mask.width || y >= mask.height) return;
    const value = erase ? 0 : 1;
    if (mask.data[y * mask.width + x] === value) {
      this.can.say(erase ? "There is no marked part here." : "This part is marked already.");
      return;
    }
    if (!erase && !mask.any) {
      this.can.say("Draw a closed outline first. Then fill it.");
      return;
    }
    this.can.began();
    this.last = { tool: "fill", erase, points: [[x, y]] };
    let edge = false;
    this.draw((open) => {
      edge = open.fill(x, y, value);
    });
    if (edge && !erase) {
      this.can.say("The fill reached the edge of the picture. If the outline has a gap, press Ctrl+Z.");
    }
  }

  draw(what) {
    const changed = this.work.change(what);
    this.view.update();
    if (changed) this.can.changed();
  }

  inside([x, y]) {
    const { mask } = this.work;
    return [Math.min(Math.max(x, 0), mask.width), Math.min(Math.max(y, 0), mask.height)];
  }

  /** Draw what is begun, and the clicks that the server answered. */
  sketch(point = null) {
    const shapes = [];
    const { gesture, corners, work } = this;
    if (gesture?.from) {
      const [[x0, y0], [x1, y1]] = [gesture.from, gesture.at];
      shapes.push({ kind: "box", points: [[x0, y0], [x1, y0], [x1, y1], [x0, y1]] });
    } else if (work?.state.box && this.name === "box") {
      const [x0, y0, x1, y1] = work.state.box;
      shapes.push({ kind: "box", points: [[x0, y0], [x1, y0], [x1, y1], [x0, y1]] });
    }
    if (corners.length) shapes.push({ kind: "line", points: point ? [...corners, point] : corners });
    for (const [x, y, side] of work?.state.points ?? []) {
      if (this.name === "points") shapes.push({ kind: side ? "in" : "out", points: [[x, y]] });
    }
    this.view.sketch(shapes);
  }

  // The ring of the brush, and the keyboard's pointer

  placeRing(at) {
    this.at = at;
    const { ring, view } = this;
    ring.hidden = !at || this.name !== "brush" || !this.work?.mask || this.space;
    if (ring.hidden) return;
    ring.style.width = ring.style.height = `${2 * this.radius}px`;
    const [x, y] = [at[0] - view.rect.left - this.radius, at[1] - view.rect.top - this.radius];
    ring.style.transform = `translate(${x}px, ${y}px)`;
    ring.classList.toggle("erases", this.erases);
  }

  hideCross() {
    if (this.virtual) this.virtualDown(false);
    this.virtual = null;
    this.cross.hidden = true;
  }

  virtualDown(yes) {
    if (this.virtual) this.virtual.down = yes;
    this.cross.classList.toggle("down", yes);
  }

  /** Move the cross-hair by steps in the directions x and y. */
  step(x, y, far) {
    const { view } = this;
    view.rect = view.box.getBoundingClientRect();
    const { width, height } = view.rect;
    this.virtual ??= { x: width / 2, y: height / 2, down: false };
    const size = far ? 20 : 2;
    const start = performance.now();
    const { virtual } = this;
    virtual.x = Math.min(Math.max(virtual.x + x * size, 0), width);
    virtual.y = Math.min(Math.max(virtual.y + y * size, 0), height);
    this.cross.hidden = false;
    this.cross.style.transform = `translate(${virtual.x}px, ${virtual.y}px)`;
    const client = [view.rect.left + virtual.x, view.rect.top + virtual.y];
    this.placeRing(client);
    if (!this.work?.mask) return;
    if (virtual.down && this.gesture) {
      this.drag(view.toPicture(...client));
      if (this.gesture.stroke) {
        view.update();
        measured("stroke", start);
      }
    } else if (this.corners.length) this.sketch(view.toPicture(...client));
  }

  /** Press or lift the keyboard's pointer. Return false if the cross-hair is not shown. */
  tap() {
    if (!this.virtual || !this.work?.mask) return false;
    if (this.virtual.down) {
      this.virtualDown(false);
      if (this.gesture) this.release();
      this.can.say("The pointer is lifted.");
      return true;
    }
    const { rect } = this.view;
    const point = this.view.toPicture(rect.left + this.virtual.x, rect.top + this.virtual.y);
    if (this.name === "hand") return true;
    this.press(point, false, "keys");
    if (this.gesture) {
      this.virtualDown(true);
      this.can.say("The pointer is down. Move it with the arrow keys, and press Space again to lift it.");
    }
    return true;
  }
}
