/** The labelling page: which picture is in hand, what the buttons and keys do, and what the person is told. */

import { fromRuns } from "./mask.js";
import { Refused, Talk } from "./talk.js";
import { HELP, NAMES, Tools, measured, times } from "./tools.js";
import { View } from "./view.js";
import { Work } from "./work.js";

const $ = (id) => document.getElementById(id);
const MANY = 9;
const PENDING = 500; // milliseconds after a change until the draft is sent
const HAND_MADE = ["brush", "polygon", "rectangle", "fill"];
const FOR_ASK = {
  brush: HAND_MADE,
  box: ["box", ...HAND_MADE],
  points: ["points", ...HAND_MADE],
  mixed: [...HAND_MADE, "box", "points"],
  accept: [],
};
const RULES = {
  grabcut: "the colours (GrabCut)",
  box: "the box itself",
  model: "the model’s map",
  segmenter: "the segmenter",
};
const KINDS = {
  drawn: "drawn by hand",
  corrected: "corrected",
  accepted: "the model’s map, accepted",
  box: "made from a box",
  points: "made from points",
};
const REASONS = [
  "None of the classes fits.",
  "More than one class fits.",
  "The picture is too unclear.",
  "I do not know.",
  "The picture is broken.",
];
const PURPOSES = { "classes first": "First some classes", "maps of test images": "Maps of test pictures" };
const EMPTY = { origin: null, touched: false, hidden: true, points: [], box: null };
const LOOKS = { opacity: 45, brightness: 100, contrast: 100 };

const store = {
  get: (name) => localStorage.getItem(`sal-fast ${name}`),
  set: (name, value) => localStorage.setItem(`sal-fast ${name}`, value),
};

let person = store.get("person");
let state = null;
let current = null; // the picture on the screen
let aside = null; // the picture that waits while an earlier answer is looked at
let ahead = []; // pictures that are ready
let mine = []; // this person's answers, oldest first
let filling = null;
let nothingLeft = false;
let saving = null; // the answer that the page waits for before it goes on
let draftTimer = 0;
let ruleCalls = 0;
let polling = 0;
let hot = -1; // the class that the search points at
let chosenTool = null;
let lastActive = performance.now();

const view = new View($("stage"), $("picture"), $("map"), $("marks"));
const talk = new Talk(told, away);
const tools = new Tools(view, $("ring"), $("cross"), {
  work: () => (free() && !current.votes ? current : null),
  began: () => {
    current.strokeSeconds ??= current.clock.seconds;
  },
  changed,
  rule: askRule,
  say,
});

const free = () => current !== null && !saving;
const inHand = () => [current, aside, ...ahead].filter(Boolean);
const who = () => `person=${encodeURIComponent(person ?? "")}`;
const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const percent = (share) => `${Math.round(share * 100)} %`;

function time(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Make an element. Texts are never read as HTML. */
function make(tag, fields = {}, ...inside) {
  const { data, ...others } = fields;
  const made = Object.assign(document.createElement(tag), tag === "button" ? { type: "button" } : {}, others);
  Object.assign(made.dataset, data);
  made.append(...inside);
  return made;
}

// What the person is told

function say(text) {
  $("status").textContent = text;
}

function away(yes, waiting) {
  $("away").hidden = !yes;
  $("away").textContent = !yes ? "" :
    "The server does not answer. Go on: your work is kept here, and it is sent when the server is back." +
    (waiting ? ` ${count(waiting, "answer waits", "answers wait")}.` : "");
  if (yes && saving) goOn();
}

/** Wait for an answer. Say what the server refused; then the result is null. */
async function heard(promise) {
  try {
    return await promise;
  } catch (error) {
    refused(error);
    return null;
  }
}

function refused(error) {
  if (!(error instanceof Refused)) throw error;
  say(error.message);
  // Another query has begun.
  if (error.status === 410) poll();
}

function heading() {
  const { counts, rounds, purpose, run } = state;
  $("title").textContent = run;
  document.title = `${run}: labelling`;
  $("who").textContent = person;
  const parts = [];
  if (purpose !== "round") parts.push(PURPOSES[purpose] ?? purpose);
  else if (rounds.total) parts.push(`Round ${Math.min(rounds.done + 1, rounds.total)} of ${rounds.total}`);
  if (rounds.accuracy !== null) parts.push(`accuracy ${percent(rounds.accuracy)}`);
  if (rounds.dice !== null) parts.push(`Dice ${rounds.dice.toFixed(2)}`);
  $("round").textContent = parts.join(" · ");
  $("progress").hidden = !counts;
  $("ties").hidden = !counts?.ties;
  if (!counts) return;
  const left = Math.max(0, counts.images - counts.answered);
  $("bar").max = Math.max(1, counts.images);
  $("bar").value = counts.answered;
  $("count").textContent = `${counts.answered} of ${counts.images} done`;
  const figures = [`${left} left`];
  if (counts.skipped) figures.unshift(`${counts.skipped} skipped`);
  if (state.seconds_each !== null) {
    figures.push(`${time(state.seconds_each)} each`);
    if (left) figures.push(`about ${time(left * state.seconds_each)} more`);
  }
  $("figures").textContent = `· ${figures.join(" · ")}`;
  $("ties").textContent = `People disagree on ${count(counts.ties, "picture")}`;
}

// The picture in hand

/** Put a picture on the screen. `from` is the time of the key that asked for it. */
function show(work, from = null) {
  current?.clock.stop();
  tools.stop();
  if (current && current !== work && current !== aside && !ahead.includes(current)) current.close();
  current = work;
  if (!work) {
    view.show([], null);
    place();
    return;
  }
  work.clock.start();
  $("blank").hidden = !work.error;
  $("blank").textContent = work.error ?? "";
  const here = toolsHere();
  tools.choose(here.includes(chosenTool) ? chosenTool : here[0]);
  view.suggested = work.untouched;
  $("search").value = "";
  hot = -1;
  // The panel comes first: it may change the size of the stage.
  place();
  panel();
  view.resize();
  view.show(work.levels, work.mask);
  if (!document.querySelector("dialog[open]")) focusPicture();
  if (from === null) return;
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => measured("next", from);
    channel.port2.postMessage(null);
  });
}

const focusPicture = () => $("map").focus({ preventScroll: true });

/** Choose which of the two screens is shown: the picture, or the calm one. */
function place() {
  const was = $("work").hidden;
  $("work").hidden = !current;
  $("calm").hidden = Boolean(current) || !state;
  if (was && current) view.resize();
  if (!current && state) calm();
}

function calm() {
  const { stage, step, counts } = state;
  const titles = {
    ask: nothingLeft ? "Nothing is left for you" : "The next picture comes",
    learn: "The model learns",
    done: "The run is finished",
    failed: "The run has stopped",
    classes: "Which classes are there?",
  };
  let { text } = state;
  if (stage === "ask" && !nothingLeft) text = "It is on its way.";
  else if (stage === "ask" && counts?.held_by_others) {
    text = `Other people work on ${count(counts.held_by_others, "picture")}. This page goes on by itself.`;
  }
  $("calm-title").textContent = titles[stage];
  $("calm-text").textContent = text;
  $("calm-step").hidden = !step || stage !== "learn";
  if (step) {
    $("calm-bar").max = Math.max(1, step.total);
    $("calm-bar").value = step.done;
    const rest = step.seconds_left ? ` · about ${time(step.seconds_left)} more` : "";
    $("calm-name").textContent = `${step.name} · ${step.done} of ${step.total}${rest}`;
  }
  $("calm-report").hidden = stage !== "done";
  $("calm-answers").hidden = stage === "classes" || stage === "done" || !counts?.mine;
  $("names").hidden = stage !== "classes";
  const lines = state.log.join("\n");
  $("calm-log").hidden = !lines || !["learn", "failed"].includes(stage);
  if ($("calm-lines").textContent !== lines) $("calm-lines").textContent = lines;
  if (stage === "failed" && !$("calm-log").dataset.seen) {
    $("calm-log").open = true;
    $("calm-log").dataset.seen = "yes";
  }
}

function toolsHere() {
  if (!current?.wants_map || current.votes) return ["hand"];
  const rules = state.rules.length > 0;
  return [...FOR_ASK[current.ask].filter((name) => rules || HAND_MADE.includes(name)), "hand"];
}

function chooseTool(name) {
  if (!toolsHere().includes(name)) return;
  chosenTool = name;
  tools.choose(name);
  panel();
  say(`${NAMES[name]}: ${HELP[name]}`);
}

function setErases(yes) {
  tools.erases = yes;
  tools.placeRing(tools.at);
  panel();
  say(yes ? "You erase now." : "You draw now.");
}

/** Show in the panel what is chosen and what can be done. */
function panel() {
  const work = current;
  if (!work) return;
  const { votes, reopened: earlier, proposed, untouched } = work;
  const { hidden } = work.state;
  const draws = work.wants_map && !votes;
  const here = toolsHere();
  const accepts = draws && work.ask === "accept";
  const press = (button, yes) => button.setAttribute("aria-pressed", Boolean(yes));
  $("picture-name").textContent = `Picture ${work.number}`;
  $("map").setAttribute("aria-label", `Drawing area, picture ${work.number}`);
  $("tools").hidden = !draws;
  for (const button of $("choice").children) {
    button.hidden = !here.includes(button.dataset.name);
    press(button, button.dataset.name === tools.name);
  }
  $("steps").hidden = accepts;
  $("undo").disabled = !work.mask?.past.length;
  $("redo").disabled = !work.mask?.future.length;

  classButtons();
  for (const button of $("classes").children) {
    press(button, button.dataset.name === work.label);
    const n = votes?.[button.dataset.name];
    button.lastChild.textContent = n ? count(n, "vote") : "";
  }
  $("class-title").textContent =
    votes ? "Which class is right?" : work.given ? "Is this class right?" : "What does it show?";
  $("add").hidden = !state.new_classes;

  $("model-part").hidden = !draws || (!work.suggested && !accepts);
  let text = "Your own map is shown.";
  if (!work.suggested) text = "The model has no map for this picture.";
  else if (proposed === null) text = "The model has no map for this class.";
  else if (work.label === null) text = `The model’s first guess is “${proposed}”.`;
  else if (untouched) text = `This is the model’s map of “${proposed}”.`;
  else if (hidden) text = "The model’s map is hidden.";
  else if (work.state.origin === "model") text = "You corrected the model’s map.";
  if (accepts && proposed === null) text += " Only the class is asked.";
  $("model-text").textContent = text;
  $("threshold-part").hidden = $("accept").hidden = !untouched;
  $("threshold").value = work.percent;
  $("threshold-value").textContent = `${work.percent} %`;
  $("refuse").hidden = !accepts || proposed === null;
  $("hide").hidden = accepts || proposed === null || !(untouched || hidden);
  $("hide-text").textContent = hidden ? "Show" : "Hide";
  $("model-row").hidden = $("accept").hidden && $("refuse").hidden && $("hide").hidden;

  const points = tools.name === "points";
  $("draw-part").hidden = here.length < 2;
  $("draw-text").textContent = HELP[tools.name];
  press($("draws"), !tools.erases);
  press($("erases"), tools.erases);
  $("draws").textContent = points ? "Inside" : "Draw";
  $("erases").textContent = points ? "Outside" : "Erase";
  $("mode").hidden = tools.name === "hand" || tools.name === "box";
  $("size-part").hidden = tools.name !== "brush";
  $("size").value = tools.radius;
  $("size-value").textContent = `${Math.round(2 * tools.radius)} px`;
  const rules = state.rules.filter((name) => name !== "box" || !points);
  const before = $("rule").value;
  $("rule-part").hidden = !["box", "points"].includes(tools.name) || rules.length < 2;
  if ($("rule").dataset.names !== rules.join()) {
    $("rule").replaceChildren(...rules.map((name) => new Option(RULES[name] ?? name, name)));
    $("rule").dataset.names = rules.join();
    if (rules.includes(before)) $("rule").value = before;
  }

  if (document.activeElement !== $("note")) $("note").value = work.note;
  $("opacity-part").hidden = !draws;
  $("reopened").hidden = !earlier;
  $("reopened-text").textContent =
    votes ? "People disagree on this picture. The class that you choose settles it."
    : work.skipped ? `You skipped picture ${work.number}: ${work.reason || "no reason was given"}`
    : work.question ? `There is a question about picture ${work.number}.`
    : `This is your answer to picture ${work.number}. You can change it.`;
  const at = mine.findIndex((answer) => answer.key === work.key);
  $("earlier").hidden = Boolean(votes) || at === 0;
  $("later").hidden = Boolean(votes) || at < 0 || at === mine.length - 1;
  $("withdraw").hidden = Boolean(votes) || !work.answer;
  $("actions").hidden = Boolean(votes);
  $("done-text").textContent = earlier ? "Save the change" : "Done";
  $("done").classList.toggle("ready", work.label !== null);
  $("back").hidden = Boolean(earlier);
  $("back").disabled = !state.counts?.mine && !talk.answered.size;
}

/** Draw the map as it is now, and send the draft a little later. */
function changed(all = false) {
  if (all || view.suggested !== current.untouched) {
    view.suggested = current.untouched;
    current.mask?.changed();
    view.redraw();
  } else view.update();
  tools.sketch();
  panel();
  draftSoon();
}

function draftSoon() {
  clearTimeout(draftTimer);
  draftTimer = setTimeout(draftNow, PENDING);
}

function noDraft() {
  clearTimeout(draftTimer);
  draftTimer = 0;
}

function draftNow() {
  if (!draftTimer) return;
  noDraft();
  if (!free() || !current.mask || current.votes) return;
  if (current.mask.step) draftSoon();
  else talk.put("draft", current.key, { person, query: state.query, ...current.saved() });
}

// Classes

function classButtons() {
  const names = state.classes;
  if ($("classes").dataset.names === JSON.stringify(names)) return;
  $("classes").dataset.names = JSON.stringify(names);
  $("find").hidden = names.length <= MANY;
  $("classes").replaceChildren(
    ...names.map((name, i) => {
      const key = i < MANY ? `${i + 1}` : "";
      const button = make(
        "button",
        { className: "class", title: key ? `${name} (${key})` : name, data: { name }, onclick: () => chooseClass(name) },
        make("kbd", { textContent: key }),
        make("span", { className: "text", textContent: name }),
        make("span", { className: "votes" }),
      );
      if (key) button.setAttribute("aria-keyshortcuts", key);
      return button;
    }),
  );
}

function chooseClass(name) {
  if (!free() || name === undefined) return;
  const work = current;
  if (work.votes) {
    work.label = name;
    // The own map stays, but the model's is not taken for one.
    const map = work.answer ? {} : { kind: null, runs: null };
    send(work, { settles: true, sure: true, ...map }, `Picture ${work.number} is settled: ${name}`);
    return;
  }
  work.classSeconds ??= work.clock.seconds;
  const before = work.proposed;
  work.label = name;
  const again = work.mask && work.wants_map && !work.own && work.proposed !== before;
  if (again) work.propose();
  say(`Class: ${name}`);
  changed(again);
}

const seenClasses = () => [...$("classes").children].filter((button) => !button.hidden);

function search() {
  const words = $("search").value.trim().toLowerCase();
  for (const button of $("classes").children) {
    button.hidden = !button.dataset.name.toLowerCase().includes(words);
  }
  hot = words ? 0 : -1;
  pointAt();
  const n = seenClasses().length;
  say(n ? `${count(n, "class is", "classes are")} found.` : "No class has this name.");
}

function pointAt() {
  const seen = seenClasses();
  for (const button of $("classes").children) button.classList.toggle("hot", button === seen[hot]);
  seen[hot]?.scrollIntoView({ block: "nearest" });
  return seen[hot]?.dataset.name;
}

function leaveSearch() {
  $("search").value = "";
  search();
  say("");
  focusPicture();
}

$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    hot = Math.min(Math.max(hot + (event.key === "ArrowDown" ? 1 : -1), 0), seenClasses().length - 1);
    say(pointAt() ?? "");
  } else if (event.key === "Enter") {
    const button = seenClasses()[Math.max(hot, 0)];
    if (!button) return;
    leaveSearch();
    chooseClass(button.dataset.name);
  } else if (event.key === "Escape") leaveSearch();
  else return;
  event.preventDefault();
  event.stopPropagation();
});

// The model's map and the rules

function setThreshold(value) {
  if (!free() || !current.untouched) return;
  current.percent = Math.min(Math.max(value, 1), 99);
  current.propose();
  changed(true);
}

function toggleHidden() {
  const work = current;
  if (!free() || !work.mask || work.votes || work.suggestion === null || work.ask === "accept") return;
  tools.stop();
  if (work.state.hidden && !work.mask.any) {
    work.state = { ...work.state, hidden: false };
    work.propose();
    say("The model’s map is shown.");
  } else {
    work.change((mask) => mask.clear(), EMPTY);
    say("The model’s map is hidden. You start from nothing.");
  }
  changed(true);
}

async function askRule(box, points) {
  const work = current;
  const call = ++ruleCalls;
  say("The map is being made…");
  $("stage").classList.add("busy");
  const rule = $("rule").value || state.rules[0];
  const question = { person, query: state.query, label: work.label, rule, box, points };
  const reply = await heard(talk.ask(`/api/rule/${encodeURIComponent(work.key)}`, question));
  if (call !== ruleCalls) return;
  $("stage").classList.remove("busy");
  if (!reply || work !== current || work.closed) return;
  work.fromRule(box ? "box" : "points", reply.runs, points, box);
  say(reply.runs.length > 1 ? "Here is the map. You can go on, or correct it." : "The rule found nothing here.");
  changed(true);
}

// Answers

function finish(more = {}) {
  const work = current;
  if (!free() || work.votes) return;
  if (work.label === null) {
    say("Choose a class first.");
    $("class-part").classList.remove("asked");
    void $("class-part").offsetWidth;
    $("class-part").classList.add("asked");
    return;
  }
  tools.stop();
  send(work, more, `Picture ${work.number} is done.`);
}

function accept() {
  const work = current;
  if (!free() || !work.untouched || work.votes) return;
  if (work.label === null) {
    work.classSeconds ??= work.clock.seconds;
    work.label = work.proposed;
  }
  finish();
}

function refuse() {
  const work = current;
  if (!free() || !work.mask || work.ask !== "accept" || work.suggestion === null) return;
  if (work.label !== null) work.change((mask) => mask.clear(), EMPTY);
  finish({ sure: true });
}

async function skip() {
  const work = current;
  if (!free() || work.votes) return;
  tools.stop();
  $("reason").value = work.reason;
  for (const button of $("reasons").children) button.setAttribute("aria-pressed", false);
  if ((await dialog("ask-skip", "reason")) !== "ok" || work !== current) return;
  const reason = $("reason").value.trim();
  send(work, { skipped: true, reason, label: null, kind: null, runs: null }, `Picture ${work.number} is skipped.`);
}

/** Send an answer and go on. For a map that the server may ask about the page waits until it is kept. */
function send(work, more, text) {
  const start = performance.now();
  noDraft();
  work.clock.stop();
  const saved = { person, query: state.query, ...work.saved(), sure: false, settles: false, ...more };
  const asks = work.wants_map && !saved.skipped && !saved.sure && work.mask.odd;
  // An empty map is sent as one, so that the server asks whether it is meant.
  if (asks) saved.runs ??= [work.width * work.height];
  const item = talk.put("answer", work.key, saved);
  item.text = text;
  if (asks && !talk.isAway) {
    saving = item;
    say("The answer is being saved…");
  } else goOn(text, start);
}

/** Show the picture that comes next. */
function goOn(text = "", start = performance.now()) {
  saving = null;
  const next = aside ?? ahead.shift() ?? null;
  aside = null;
  show(next, next && start);
  say(text);
  refill();
}

/** Hear from the queue what became of an answer. */
function told(item, reply, error) {
  if (error) {
    if (item.what === "answer") notTaken(item, error);
    else if (item.what === "withdraw" || error.status === 410) refused(error);
    return;
  }
  if (item.what === "draft") return;
  if (reply.counts && state) {
    state.counts = reply.counts;
    heading();
    if (reply.counts.answered >= reply.counts.images) pollSoon(300);
  }
  if (saving === item) goOn(item.text);
  else {
    panel();
    refill();
  }
}

/** Ask back, or say why the server refused an answer. The picture is on the screen again. */
async function notTaken(item, error) {
  const { key, body: saved } = item;
  const here = saving === item && current?.key === key;
  saving = null;
  if (error.status === 410) {
    if (here) show(null);
    refused(error);
    return;
  }
  if (!here) await open(key, saved);
  if (current?.key !== key) return;
  current.clock.start();
  panel();
  if (error.status !== 409) {
    say(error.message);
    return;
  }
  const { ask } = error.reply;
  $("sure-text").textContent = error.message;
  $("sure-invert").hidden = ask === "empty";
  $("sure-keep").textContent = ask === "empty" ? "Go on without a map" : "Keep it";
  $("sure-keep").classList.toggle("main", ask === "empty");
  const choice = await dialog("ask-sure", ask === "empty" ? "sure-keep" : "sure-invert");
  if (current?.key !== key) return;
  if (choice === "invert") current.change((mask) => mask.invert());
  if (choice === "invert" || choice === "keep") finish({ sure: true });
  else {
    say("Change the map, and press Done again.");
    changed();
  }
}

// Earlier answers

async function readMine() {
  await talk.drain();
  const reply = await heard(talk.ask(`/api/mine?${who()}&query=${state.query}`));
  if (reply) mine = reply.answers;
  return reply !== null;
}

/** Open a picture again. `saved` is an answer that the server did not take. */
async function open(key, saved = null, votes = null) {
  draftNow();
  const picture = await heard(talk.ask(`/api/open/${encodeURIComponent(key)}?${who()}&query=${state.query}`));
  if (!picture) return;
  const work = new Work(picture, saved ?? picture.draft ?? picture.answer);
  Object.assign(work, { reopened: true, votes, question: saved !== null });
  if (!(await loaded(work))) return;
  if (current && !current.reopened) aside = current;
  show(work);
  say("");
  if (saved) draftSoon();
}

async function back(by) {
  if (saving || !(await readMine())) return;
  const at = current?.reopened ? mine.findIndex((answer) => answer.key === current.key) : mine.length;
  const answer = at >= 0 ? mine[at + by] : null;
  if (answer) await open(answer.key);
  else say(by < 0 ? "There is no earlier answer." : "There is no later answer.");
}

function comeBack() {
  if (!free() || !current.reopened) return;
  draftNow();
  goOn();
}

function withdraw(key) {
  const text = "The answer is withdrawn. The picture comes again.";
  const here = current?.key === key && current.reopened;
  if (here) noDraft();
  talk.put("withdraw", key, { person, query: state.query });
  if (here) goOn(text);
  else say(text);
}

async function list(title, text, rows) {
  $("list-title").textContent = title;
  $("list-text").textContent = text;
  const item = ({ number, detail, act, more = [] }) => {
    const name = make("strong", { textContent: `Picture ${number}` });
    const onclick = () => {
      $("list").close();
      act();
    };
    return make("li", {}, make("button", { onclick }, name, make("span", { textContent: detail })), ...more);
  };
  $("list-items").replaceChildren(...rows.map(item));
  await dialog("list");
}

async function listAnswers() {
  if (saving || state.query === null || !(await readMine())) return;
  const none = "You have not answered yet in this round.";
  await list(
    "My answers",
    mine.length ? "Choose an answer to look at it or to change it." : none,
    mine.map(({ key, number, label, skipped, kind }) => {
      const take = make("button", { className: "quiet", textContent: "Withdraw" });
      take.setAttribute("aria-label", `Withdraw the answer to picture ${number}`);
      take.onclick = () => {
        withdraw(key);
        take.parentNode.remove();
        $("list-title").focus();
      };
      const detail = skipped ? "skipped" : [label, KINDS[kind]].filter(Boolean).join(" · ");
      return { number, detail, act: () => open(key), more: [take] };
    }),
  );
}

async function listTies() {
  if (saving || !state.counts?.ties) return;
  const reply = await heard(talk.ask(`/api/ties?query=${state.query}`));
  if (!reply) return;
  await list(
    "People disagree",
    "Look at a picture and choose its class. Your choice settles it.",
    reply.ties.map(({ key, number, votes }) => {
      const detail = Object.entries(votes).map(([name, n]) => `${name}: ${n}`).join(" · ");
      return { number, detail, act: () => open(key, null, votes) };
    }),
  );
}

// Pictures to come

/** Decode a picture. It is tried again while the server is away. */
async function loaded(work) {
  while (!(await work.load(view.room))) {
    talk.lost(true);
    await new Promise((done) => setTimeout(done, 1000));
    if (work.closed) return false;
  }
  return !work.closed;
}

function refill() {
  if (state?.stage !== "ask" || !person) return;
  if (filling) {
    filling.again = true;
    return;
  }
  const turn = (filling = { again: false });
  heard(takeMore()).finally(() => {
    filling = null;
    if (turn.again) refill();
  });
}

async function takeMore() {
  await talk.drain();
  const { query } = state;
  const held = heldKeys();
  const { pictures } = await talk.ask("/api/take", { person, query, count: 2, held });
  for (const picture of pictures) {
    if (state.query !== query) return;
    const here = inHand().some((work) => work.key === picture.key);
    if (here || talk.answered.has(picture.key) || ahead.length >= 2) continue;
    const work = new Work(picture, picture.draft ?? picture.answer);
    if (!(await loaded(work))) return;
    if (state.query !== query || talk.answered.has(picture.key)) {
      work.close();
      continue;
    }
    ahead.push(work);
    nothingLeft = false;
    if (!current) show(ahead.shift());
  }
  if (!current && !ahead.length) {
    nothingLeft = true;
    place();
    pollSoon(2000);
  }
}

function drop() {
  current?.clock.stop();
  for (const work of inHand()) work.close();
  noDraft();
  current = aside = saving = null;
  ahead = [];
  nothingLeft = false;
  view.show([], null);
  tools.stop();
}

const heldKeys = () => inHand().filter((work) => !work.reopened || !work.answer).map((work) => work.key);

// The state of the run

async function poll() {
  clearTimeout(polling);
  const next = await heard(talk.ask(`/api/state?${who()}`));
  if (!next) {
    pollSoon(5000);
    return;
  }
  const before = state;
  state = next;
  if (talk.run === null) await talk.recall(next.run);
  if (before && before.query !== next.query) {
    drop();
    say(next.stage === "ask" ? "New pictures are asked for." : "");
  } else if (before?.stage === "ask" && next.stage !== "ask" && current && !current.reopened) drop();
  heading();
  if (current) panel();
  else {
    place();
    refill();
  }
  pollSoon(["learn", "classes"].includes(next.stage) ? 2000 : nothingLeft ? 3000 : 15000);
}

function pollSoon(ms) {
  clearTimeout(polling);
  polling = setTimeout(poll, ms);
}

// Dialogs

/** Show a dialog. Resolve with the value of the button that closed it. */
function dialog(id, focus = null) {
  const box = $(id);
  if (document.querySelector("dialog[open]")) return Promise.resolve("cancel");
  box.returnValue = "cancel";
  const focused = document.activeElement;
  box.showModal();
  if (focus) $(focus).focus();
  return new Promise((done) => {
    const close = () => {
      if (focused?.isConnected && focused !== document.body) focused.focus({ preventScroll: true });
      else focusPicture();
      done(box.returnValue);
    };
    box.addEventListener("close", close, { once: true });
  });
}

async function askName() {
  const first = !person;
  $("person").value = person ?? "";
  $("name-cancel").hidden = first;
  do {
    if ((await dialog("ask-name", "person")) !== "ok" && !first) return;
  } while (!$("person").value.trim());
  const name = $("person").value.trim();
  if (name === person) return;
  draftNow();
  release();
  person = name;
  store.set("person", name);
  drop();
  if (!first) poll();
}

async function addNames(names) {
  const reply = await talk.ask("/api/classes", { person, query: state.query, names });
  state.classes = reply.classes;
}

async function addClass() {
  if (!state.new_classes || !free()) return;
  $("new-class").value = "";
  const name = (await dialog("ask-class", "new-class")) === "ok" && $("new-class").value.trim();
  if (!name) return;
  await heard(addNames([name]));
  panel();
  if (state.classes.includes(name)) chooseClass(name);
}

$("names").addEventListener("submit", async (event) => {
  event.preventDefault();
  const names = new Set($("names-text").value.split("\n").map((name) => name.trim()).filter(Boolean));
  try {
    if (names.size < 2) throw new Error("At least two different names are needed.");
    await addNames([...names]);
    poll();
  } catch (error) {
    $("calm-text").textContent = error.message;
  }
});

async function guide() {
  if (state.instructions && !$("instructions").childElementCount) {
    try {
      const text = await (await fetch("/instructions")).text();
      const read = new DOMParser().parseFromString(text, "text/html");
      $("instructions").replaceChildren(...read.body.childNodes);
    } catch {
      // Without the server only the keys are shown.
    }
  }
  await dialog("guide", "guide-title");
}

for (const [i, text] of REASONS.entries()) {
  const button = make("button", {}, make("kbd", { textContent: i + 1 }), make("span", { textContent: text }));
  button.onclick = () => {
    $("reason").value = text;
    for (const other of $("reasons").children) other.setAttribute("aria-pressed", other === button);
    $("skip-now").focus();
  };
  $("reasons").append(button);
}
$("ask-skip").addEventListener("keydown", (event) => {
  const typed = $("reason").value && document.activeElement === $("reason");
  const button = $("reasons").children[Number(event.key) - 1];
  if (!button || typed || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  button.click();
});

// Controls

function undo(redo) {
  if (!free() || !current.mask || current.votes || (!redo && tools.unpin())) return;
  tools.stop();
  const moved = current.undo(redo);
  if (moved) changed(true);
  if (redo) say(moved ? "Done again." : "There is nothing to do again.");
  else say(moved ? "Undone." : "There is nothing to undo.");
}

function whole(draw, more) {
  if (!free() || !current.mask || toolsHere().length < 2) return;
  tools.stop();
  current.strokeSeconds ??= current.clock.seconds;
  current.change(draw, more);
  changed(true);
}

function setSize(radius) {
  tools.size(radius);
  store.set("size", tools.radius);
  panel();
}

function setLook(name, value) {
  const field = $(name);
  field.value = value;
  store.set(name, field.value);
  $(`${name}-value`).textContent = `${field.value} %`;
  view.opacity = $("opacity").value / 100;
  $("picture").style.filter = `brightness(${$("brightness").value / 100}) contrast(${$("contrast").value / 100})`;
  if (name === "opacity") view.redraw();
}

function theme(name) {
  const { dataset } = document.documentElement;
  if (name) dataset.theme = name;
  const now = dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  $("theme").textContent = other === "dark" ? "Dark" : "Light";
  view.redraw();
  return other;
}

function changeTheme() {
  const other = theme();
  store.set("theme", other);
  theme(other);
}

function jump(id) {
  if (!$(id).checkVisibility()) return;
  $(id).focus();
  $(id).select?.();
}

function look() {
  const { parentNode: box } = $("look");
  box.open = !box.open;
  if (box.open) jump($("opacity-part").hidden ? "brightness" : "opacity");
}

// Each control: its key, its title, and what it does. The keys, the titles and the guide are made from this.
const CONTROLS = {
  done: ["Enter", "Done: save and go on, or close the polygon", () => tools.close() || finish()],
  accept: ["A", "Accept the model’s map as it is, and go on", accept],
  refuse: ["N", "The map is wrong: answer without a map", refuse],
  hide: ["X", "Hide the model’s map, or show it", toggleHidden],
  ...Object.fromEntries(
    Object.entries({ brush: "B", polygon: "P", rectangle: "R", fill: "F", box: "O", points: "T", hand: "H" }).map(
      ([name, key]) => [`tool-${name}`, [key, `${NAMES[name]}: ${HELP[name]}`, () => chooseTool(name)]],
    ),
  ),
  draws: ["E", "Draw or erase: the right button does the other", () => setErases(false)],
  erases: ["E", "", () => setErases(true)],
  undo: ["Ctrl+Z", "Undo", () => undo(false)],
  redo: ["Ctrl+Y", "Redo (also Ctrl+Shift+Z)", () => undo(true)],
  clear: ["C", "Clear the map", () => whole((mask) => mask.clear(), EMPTY)],
  invert: ["I", "Invert the map", () => whole((mask) => mask.invert())],
  larger: ["+", "Zoom in (also the wheel)", () => view.zoom(1.25)],
  smaller: ["-", "Zoom out", () => view.zoom(1 / 1.25)],
  fit: ["0", "Show the whole picture", () => view.fit()],
  search: ["/", "Find a class: the arrow keys and Enter choose it", () => jump("search")],
  add: ["K", "Add a class", addClass],
  note: ["M", "Write a note on this picture", () => jump("note")],
  rule: ["Y", "Choose the rule that makes the map", () => jump("rule")],
  skip: ["S", "Skip this picture", skip],
  back: ["Backspace", "Go back to the answer before", () => tools.unpin() || back(-1)],
  earlier: ["Backspace", "", () => back(-1)],
  later: ["Shift+Backspace", "Go on to the answer after", () => back(1)],
  withdraw: ["W", "Withdraw the answer that is shown", () => $("withdraw").checkVisibility() && withdraw(current.key)],
  return: ["Escape", "Stop, or return to the picture in hand: changes are kept as a draft", () => tools.stop() || comeBack()],
  answers: ["L", "My answers", listAnswers],
  "calm-answers": ["L", "", listAnswers],
  ties: ["U", "Pictures on which people disagree", listTies],
  look: ["V", "How it looks: map, brightness, contrast", look],
  plain: ["G", "Picture and map as they were", () => Object.entries(LOOKS).forEach((pair) => setLook(...pair))],
  who: ["J", "Change the name", askName],
  theme: ["D", "Light or dark", changeTheme],
  help: ["?", "Instructions and keys", guide],
};
// Each slider: the keys for less and more, its title, what it sets, and by how much.
const SLIDERS = {
  threshold: ["< >", "Threshold of the model’s map", setThreshold, (value, way) => value + 2 * way],
  size: ["[ ]", "Size of the brush", setSize, (value, way) => value * 1.2 ** way],
  opacity: [", .", "Opacity of the map", (value) => setLook("opacity", value), (value, way) => value + 5 * way],
  brightness: ["( )", "Brightness of the picture", (value) => setLook("brightness", value), (value, way) => value + 10 * way],
  contrast: ["{ }", "Contrast of the picture", (value) => setLook("contrast", value), (value, way) => value + 10 * way],
};
const PRESSES = { "=": () => view.zoom(1.25), _: () => view.zoom(1 / 1.25) };
const WITHOUT_PICTURE = ["l", "j", "d", "u", "?"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function explain(keys, text) {
  $("keys").append(make("dt", { textContent: keys }), make("dd", { textContent: text }));
}

function name(id, keys, text) {
  $(id).title = `${text} (${keys})`;
  $(id).setAttribute("aria-keyshortcuts", keys.replace("Ctrl", "Control"));
}

for (const tool of Object.keys(NAMES)) {
  const button = make("button", { id: `tool-${tool}`, className: "tool", data: { name: tool } });
  button.innerHTML = `<svg><use href="#i-${tool}"/></svg>`;
  button.append(make("span", { textContent: NAMES[tool] }));
  $("choice").append(button);
}
explain("1 to 9", "Choose a class");
let title = "";
for (const [id, [keys, text, act]] of Object.entries(CONTROLS)) {
  if (text) explain(keys, (title = text));
  name(id, keys, title);
  const key = keys.length === 1 ? keys.toLowerCase() : keys;
  PRESSES[key] ??= act;
  if ($(id).localName === "button") $(id).addEventListener("click", act);
}
PRESSES.e = () => setErases(!tools.erases);
for (const [id, [keys, text, set, step]] of Object.entries(SLIDERS)) {
  explain(keys, text);
  name(id, keys, text);
  for (const [i, key] of keys.split(" ").entries()) {
    PRESSES[key] = () => set(step(id === "size" ? tools.radius : Number($(id).value), i ? 1 : -1));
  }
  $(id).addEventListener("input", () => set(Number($(id).value)));
}
explain("Arrows", "On the picture: move the cross-hair, ten times as far with Shift");
explain("Space", "On the picture: press the cross-hair and lift it. With the mouse: move the picture");

// A click leaves the focus on the picture: there Enter means Done.
document.addEventListener("mousedown", (event) => {
  if (event.target.closest("button") && !event.target.closest("dialog, form")) event.preventDefault();
});

$("note").addEventListener("input", () => {
  if (!current) return;
  current.note = $("note").value;
  draftSoon();
});
$("note").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  focusPicture();
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || !state || document.querySelector("dialog[open]")) return;
  const { target: at, key } = event;
  if (at.matches("textarea, select, input:not([type=range])")) {
    if (key === "Escape") focusPicture();
    return;
  }
  const third = event.getModifierState("AltGraph");
  let act = null;
  if ((event.ctrlKey || event.metaKey) && !third) {
    if (key.toLowerCase() === "z") act = () => undo(event.shiftKey);
    else if (key.toLowerCase() === "y") act = () => undo(true);
  } else if (event.altKey && !third) return;
  else if ((key === "Enter" || key === " ") && at.closest("button, summary, a")) return;
  else if (key in ARROWS) {
    if (current && (at === view.layer || at === document.body)) act = () => tools.step(...ARROWS[key], event.shiftKey);
  } else if (key === " ") act = () => event.repeat || tools.tap() || holdSpace(true);
  else if (/^[1-9]$/.test(key)) act = () => chooseClass(state.classes[key - 1]);
  else if (key === "Backspace" && event.shiftKey) act = PRESSES["Shift+Backspace"];
  else {
    const name = key.length === 1 ? key.toLowerCase() : key;
    if (Object.hasOwn(PRESSES, name) && (current || WITHOUT_PICTURE.includes(name))) act = PRESSES[name];
  }
  if (!act || (!current && !WITHOUT_PICTURE.includes(key.toLowerCase()))) return;
  event.preventDefault();
  act();
});

function holdSpace(yes) {
  tools.space = yes;
  $("stage").classList.toggle("space", yes);
  tools.placeRing(tools.at);
}

document.addEventListener("keyup", (event) => {
  if (event.key === " ") holdSpace(false);
});

// Time and leaving

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
  const alive = () => {
    lastActive = performance.now();
    current?.clock.tick();
  };
  addEventListener(kind, alive, { capture: true, passive: true });
}

document.addEventListener("visibilitychange", () => {
  current?.clock.show(document.hidden);
  if (document.hidden) draftNow();
  else if (state) pollSoon(100);
});

function release() {
  const keys = heldKeys();
  if (!keys.length || !state) return;
  // A request of this kind outlives the page.
  fetch("/api/release", {
    method: "POST",
    keepalive: true,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ person, query: state.query, keys }),
  }).catch(() => {});
}

addEventListener("pagehide", () => {
  draftNow();
  release();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
// What is in hand is renewed while somebody works.
setInterval(() => {
  if (current && performance.now() - lastActive < 600000) refill();
}, 60000);

view.moved = () => tools.sketch();

/** What tests and curious people may look at. */
window.page = {
  times,
  view,
  tools,
  talk,
  fromRuns,
  get work() {
    return current;
  },
  get ahead() {
    return ahead;
  },
  get state() {
    return state;
  },
  get runs() {
    return current?.mask?.runs() ?? null;
  },
};

async function start() {
  theme(store.get("theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
  tools.size(Number(store.get("size")) || 12);
  for (const [name, value] of Object.entries(LOOKS)) setLook(name, store.get(name) ?? value);
  if (!person) await askName();
  await poll();
  if (state?.instructions && store.get("read") !== state.run) {
    store.set("read", state.run);
    guide();
  }
}

start();
