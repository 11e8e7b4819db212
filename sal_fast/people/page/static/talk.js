/** Requests to the server. What cannot be sent is kept in the browser, and sent in order as soon as it can be. */

const PAUSE = 1000;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export class Refused extends Error {
  constructor(status, reply) {
    super(reply.error ?? `The server refused this (${status}).`);
    this.status = status;
    this.reply = reply;
  }
}

class Away extends Error {}

async function send(path, body) {
  let response;
  let text;
  try {
    const sent = JSON.stringify(body);
    const options = body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: sent,
      // A small request outlives the page.
      keepalive: sent.length < 30000,
    };
    response = await fetch(path, { cache: "no-store", ...options });
    text = await response.text();
  } catch {
    throw new Away();
  }
  let reply = {};
  try {
    reply = JSON.parse(text);
  } catch {
    if (response.ok) throw new Away();
    if (text && !text.startsWith("<")) reply.error = text;
  }
  if (response.status >= 502 && response.status <= 504) throw new Away();
  if (!response.ok) throw new Refused(response.status, reply);
  return reply;
}

/** The answers that are not sent yet, as the browser keeps them when the page is closed. */
class Drawer {
  constructor() {
    this.base = new Promise((done) => {
      try {
        const opening = indexedDB.open("sal-fast", 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore("unsent", { keyPath: "id" });
        opening.onsuccess = () => done(opening.result);
        opening.onerror = () => done(null);
      } catch {
        done(null);
      }
    });
  }

  async use(mode, what) {
    const base = await this.base;
    if (!base) return [];
    return new Promise((done) => {
      try {
        const deal = base.transaction("unsent", mode);
        const request = what(deal.objectStore("unsent"));
        deal.oncomplete = () => done(request.result);
        deal.onerror = deal.onabort = () => done([]);
      } catch {
        done([]);
      }
    });
  }

  all = () => this.use("readonly", (store) => store.getAll());
  put = (item) => this.use("readwrite", (store) => store.put(item));
  drop = (id) => this.use("readwrite", (store) => store.delete(id));
}

export class Talk {
  /** `told(item, reply, error)` hears what became of an answer; `away(bool, waiting)` hears of the connection. */
  constructor(told, away) {
    this.told = told;
    this.away = away;
    this.isAway = false;
    this.items = [];
    this.drawer = new Drawer();
    this.run = null;
    this.busy = null;
    this.last = 0;
  }

  lost(yes) {
    this.isAway = yes;
    this.away(yes, this.items.filter((item) => item.what !== "draft").length);
  }

  /** Send a request until the server answers it. */
  async ask(path, body) {
    for (;;) {
      try {
        const reply = await send(path, body);
        if (this.isAway) this.lost(false);
        return reply;
      } catch (error) {
        if (!(error instanceof Away)) throw error;
        this.lost(true);
        await wait(PAUSE);
      }
    }
  }

  /** Take up what an earlier page of this run could not send. */
  async recall(run) {
    this.run = run;
    const old = (await this.drawer.all()).filter((item) => item.run === run);
    this.items = [...old, ...this.items];
    this.drain();
  }

  /** Put an answer, a withdrawal or a draft in the queue. A draft takes the place of an older one. */
  put(what, key, body) {
    this.last = Math.max(Date.now() * 1000, this.last + 1);
    const item = { id: this.last, run: this.run, what, key, body };
    for (const old of this.items.filter((other) => other.key === key && other.what === "draft")) {
      if (old !== this.sending) this.forget(old);
    }
    this.items.push(item);
    this.drawer.put(item);
    this.drain();
    return item;
  }

  forget(item) {
    this.items = this.items.filter((other) => other !== item);
    this.drawer.drop(item.id);
  }

  /** Return the keys whose answer is on its way. */
  get answered() {
    return new Set(this.items.filter((item) => item.what === "answer").map((item) => item.key));
  }

  /** Send the queue, one after the other. Resolve when it is empty. */
  drain() {
    this.busy ??= this.sendAll().finally(() => {
      this.busy = null;
    });
    return this.busy;
  }

  async sendAll() {
    let failures = 0;
    while (this.items.length) {
      const item = (this.sending = this.items[0]);
      let reply = null;
      let refused = null;
      try {
        reply = await send(`/api/${item.what}/${encodeURIComponent(item.key)}`, item.body);
      } catch (error) {
        const broken = error instanceof Refused && error.status >= 500 && ++failures < 5;
        if (error instanceof Away || broken) {
          this.lost(true);
          await wait(PAUSE);
          continue;
        }
        refused = error;
      }
      failures = 0;
      this.sending = null;
      this.forget(item);
      if (this.isAway) this.lost(false);
      this.told(item, reply, refused);
    }
  }
}
