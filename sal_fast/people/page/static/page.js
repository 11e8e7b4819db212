/** The labelling page: which picture is in hand, what the buttons and keys do, and what the person is told. */

import { fromRuns } from "./mask.js";
import { Refused, Talk } from "./talk.js";
import { Tools, measured, times } from "./tools.js";
import { View } from "./view.js";
import { Work } from "./work.js";

const $ = (id) => document.getElementById(id);
const MANY = 9;
const PENDING = 500; // milliseconds after a change until the draft is sent
const TOOLS = {
  brush: ["Brush", "B"],
  polygon: ["Polygon", "P"],
  rectangle: ["Rectangle", "R"],
  fill: ["Fill", "F"],
  box: ["Box", "O"],
  points: ["Points", "T"],
  hand: ["Move", "H"],
};
const HAND_MADE = ["brush", "polygon", "rectangle", "fill"];
const FOR_ASK = {
  brush: HAND_MADE,
  box: ["box", ...HAND_MADE],
  points: ["points", ...HAND_MADE],
  mixed: [...HAND_MADE, "box", "points"],
  accept: [],
};
const HELP = {
  brush: "Paint over the object.",
  polygon: "Click the corners. Close it with Enter.",
  rectangle: "Drag from one corner to the other.",
  fill: "Click a hole inside the outline.",
  box: "Drag a box around the object.",
  points: "Click on the object. Click beside it with Alt or the right button.",
  hand: "Drag the picture.",
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
const KEYS = [
  ["1 to 9", "choose a class"],
  ["/", "find a class; the arrow keys and Enter choose one"],
  ["Enter", "done, or close the polygon"],
  ["A", "accept the model’s map as it is"],
  ["N", "answer without a map"],
  ["X", "hide the model’s map, or show it"],
  ["< >", "threshold of the model’s map"],
  ["B P R F", "brush, polygon, rectangle, fill"],
  ["O T", "box, points"],
  ["H", "move the picture (also the middle button, or Space and drag)"],
  ["E", "draw or erase (the right button does the other)"],
  ["[ ]", "size of the brush"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"],
  ["C I", "clear, invert"],
  ["+ - 0", "zoom in, zoom out, whole picture (also the wheel)"],
  [", .", "opacity of the map"],
  ["( ) { }", "brightness, contrast"],
  ["G", "picture and map as they were"],
  ["V", "open how it looks"],
  ["S", "skip the picture"],
  ["Backspace", "go back to the answer before"],
  ["Shift+Backspace", "go on to the answer after"],
  ["W", "withdraw the answer that is shown"],
  ["Esc", "stop, or return to the picture in hand"],
  ["L", "my answers"],
  ["M", "note"],
  ["Y", "rule that makes the map"],
  ["K", "add a class"],
  ["J D", "name, light or dark"],
  ["Arrows, Space", "on the picture: move the cross-hair (Shift: far), press and lift it"],
];

const store = {
  get(name) {
    try {
      return localStorage.getItem(`sal-fast ${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`sal-fast ${name}`, value);
    } catch {
      // A browser that keeps nothing asks again the next time.
    }
  },
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
  work: () => (current && !current.votes && !saving ? current : null),
  began: () => {
    current.strokeSeconds ??= current.clock.seconds;
  },
  changed: () => changed(),
  rule: (box, points) => askRule(box, points),
  say,
});

// What the person is told

function say(text) {
  $("status").textContent = text;
}

function away(yes, waiting) {
  $("away").hidden = !yes;
  if (!yes) {
    $("away").textContent = "";
    return;
  }
  const kept = waiting === 1 ? " One answer waits." : waiting ? ` ${waiting} answers wait.` : "";
  $("away").textContent =
    `The server does not answer. Go on: your work is kept here, and it is sent when the server is back.${kept}`;
  if (saving) goOn();
}

function seconds(value) {
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

const percent = (share) => `${Math.round(share * 100)} %`;

function heading() {
  if (!state) return;
  const { counts, rounds } = state;
  $("title").textContent = state.run;
  document.title = `${state.run}: labelling`;
  const parts = [`Round ${Math.min(rounds.done + 1, rounds.total)} of ${rounds.total}`];
  if (state.purpose === "maps of test images") parts[0] = "Maps of test images";
  if (rounds.accuracy !== null) parts.push(`accuracy ${percent(rounds.accuracy)}`);
  if (rounds.dice !== null) parts.push(`Dice ${rounds.dice.toFixed(2)}`);
  $("round").textContent = parts.join(" · ");
  const done = counts.answered + counts.skipped;
  const left = Math.max(0, counts.images - done);
  $("bar").max = Math.max(1, counts.images);
  $("bar").value = done;
  $("count").textContent = `${done} of ${counts.images} done`;
  const figures = [];
  if (counts.skipped) figures.push(`${counts.skipped} skipped`);
  figures.push(`${left} left`);
  if (state.seconds_each !== null) {
    figures.push(`${seconds(state.seconds_each)} each`);
    if (left) figures.push(`about ${seconds(left * state.seconds_each)} more`);
  }
  $("figures").textContent = `· ${figures.join(" · ")}`;
  $("ties").hidden = !counts.ties;
  $("ties").textContent =
    counts.ties === 1 ? "People disagree on one picture" : `People disagree on ${counts.ties} pictures`;
  $("ties").title = `${$("ties").textContent} (U)`;
  $("ties").setAttribute("aria-keyshortcuts", "U");
  $("who").textContent = person ?? "";
  $("who").title = `Name: ${person ?? ""}. Change it (J)`;
}

// The picture in hand

function show(work, from = null) {
  const start = from ?? performance.now();
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
  pickTool();
  view.suggested = work.untouched;
  $("search").value = "";
  hot = -1;
  // The panel comes first: it may change the size of the stage.
  place();
  panel();
  view.resize();
  view.show(work.levels, work.mask);
  tools.sketch();
  if (!document.querySelector("dialog[open]")) $("map").focus({ preventScroll: true });
  if (from !== null) {
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => measured("next", start);
      channel.port2.postMessage(null);
    });
  }
}

/** Choose which of the two screens is shown: the picture, or the calm one. */
function place() {
  const working = current !== null;
  const was = $("work").hidden;
  $("work").hidden = !working;
  $("calm").hidden = working || !state;
  if (was && working) view.resize();
  if (!working) calm();
}

function calm() {
  if (!state) return;
  const { stage, step } = state;
  const titles = {
    ask: nothingLeft ? "Nothing is left for you" : "The next picture comes",
    learn: "The model learns",
    done: "The run is finished",
    failed: "The run has stopped",
    classes: "Which classes are there?",
  };
  let text = state.text;
  if (stage === "ask" && !nothingLeft) text = "It is on its way.";
  else if (stage === "ask" && state.counts.held_by_others) {
    const n = state.counts.held_by_others;
    text = `${n === 1 ? "One picture is" : `${n} pictures are`} in other people’s hands. This page goes on by itself.`;
  }
  $("calm-title").textContent = titles[stage];
  $("calm-text").textContent = text;
  $("calm-step").hidden = !step || stage !== "learn";
  if (step) {
    $("calm-bar").max = Math.max(1, step.total);
    $("calm-bar").value = step.done;
    const rest = step.seconds_left ? ` · about ${seconds(step.seconds_left)} more` : "";
    $("calm-name").textContent = `${step.name} · ${step.done} of ${step.total}${rest}`;
  }
  $("calm-report").hidden = stage !== "done";
  $("calm-answers").hidden = stage === "classes" || stage === "done" || !state.counts.mine;
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
  if (!current?.wants_map || current.votes) return [];
  const made = state.rules.length > 0;
  return FOR_ASK[current.ask].filter((name) => made || !["box", "points"].includes(name));
}

function pickTool() {
  const here = [...toolsHere(), "hand"];
  const name = here.includes(chosenTool) ? chosenTool : here[0];
  tools.choose(name);
}

function chooseTool(name) {
  if (![...toolsHere(), "hand"].includes(name)) return;
  chosenTool = name;
  tools.choose(name);
  tools.sketch();
  panel();
  say(`${TOOLS[name][0]}: ${HELP[name]}`);
}

function setErases(yes) {
  tools.erases = yes;
  tools.placeRing(tools.at);
  panel();
  say(yes ? "You erase now." : "You draw now.");
}

/** Show in the panel what is chosen and what can be done. */
function panel() {
  if (!current) return;
  const work = current;
  const here = toolsHere();
  const accepts = work.ask === "accept" && work.wants_map;
  $("picture-name").textContent = `Picture ${work.number}`;
  $("map").setAttribute("aria-label", `Drawing area, picture ${work.number}`);
  $("tools").hidden = !work.wants_map || Boolean(work.votes);
  for (const button of $("choice").children) {
    const { name } = button.dataset;
    button.hidden = !here.includes(name) && name !== "hand";
    button.setAttribute("aria-pressed", name === tools.name);
  }
  $("steps").hidden = accepts;
  $("undo").disabled = !work.mask?.past.length;
  $("redo").disabled = !work.mask?.future.length;

  classButtons();
  for (const button of $("classes").children) {
    button.setAttribute("aria-pressed", button.dataset.name === work.label);
    const votes = work.votes?.[button.dataset.name];
    button.querySelector(".votes").textContent = votes ? `${votes} ${votes === 1 ? "vote" : "votes"}` : "";
  }
  $("class-title").textContent = work.votes
    ? "Which class is right?"
    : work.given ? "Is this class right?" : "What does it show?";
  $("add").hidden = !state.new_classes;

  $("model-part").hidden = !work.wants_map || Boolean(work.votes) || (!work.suggested && !accepts);
  const proposed = work.proposed;
  const shown = work.untouched;
  let text = "";
  if (proposed === null) {
    text = !work.suggested ? "The model has no map for this picture, so only the class is asked."
      : "The model has no map for this class.";
    if (work.suggested && accepts) text += " Only the class is asked.";
  } else if (work.label === null) text = `The model’s first guess is “${proposed}”.`;
  else if (shown) text = `This is the model’s map of “${proposed}”.`;
  else if (work.state.hidden) text = "The model’s map is hidden.";
  else if (work.state.origin === "model") text = "You corrected the model’s map.";
  else text = "Your own map is shown.";
  $("model-text").textContent = text;
  $("threshold-part").hidden = !shown;
  $("threshold").value = work.percent;
  $("threshold-value").textContent = `${work.percent} %`;
  $("accept").hidden = !shown;
  $("refuse").hidden = !accepts || proposed === null;
  $("hide").hidden = accepts || proposed === null || !(shown || work.state.hidden);
  $("hide-text").textContent = work.state.hidden ? "Show" : "Start from nothing";
  $("model-row").hidden = $("accept").hidden && $("refuse").hidden && $("hide").hidden;

  $("draw-part").hidden = !here.length;
  $("draw-text").textContent = HELP[tools.name];
  $("draws").setAttribute("aria-pressed", !tools.erases);
  $("erases").setAttribute("aria-pressed", tools.erases);
  $("draws").textContent = tools.name === "points" ? "Inside" : "Draw";
  $("erases").textContent = tools.name === "points" ? "Outside" : "Erase";
  $("mode").hidden = tools.name === "hand" || tools.name === "box";
  $("size-part").hidden = tools.name !== "brush";
  $("size").value = tools.radius;
  $("size-value").textContent = `${Math.round(2 * tools.radius)} px`;
  const rules = state.rules.filter((name) => name !== "box" || tools.name !== "points");
  $("rule-part").hidden = !["box", "points"].includes(tools.name) || rules.length < 2;
  if ($("rule").dataset.names !== rules.join()) {
    const before = $("rule").value;
    $("rule").replaceChildren(...rules.map((name) => new Option(RULES[name] ?? name, name)));
    $("rule").dataset.names = rules.join();
    if (rules.includes(before)) $("rule").value = before;
  }

  if (document.activeElement !== $("note")) $("note").value = work.note;
  $("opacity-part").hidden = !work.wants_map;
  const earlier = Boolean(work.reopened);
  $("reopened").hidden = !earlier;
  if (earlier) {
    const about = work.votes ? "People disagree on this picture. The class that you choose settles it."
      : work.skipped ? `You skipped picture ${work.number}: ${work.reason || "no reason was given"}`
      : work.question ? `Picture ${work.number} has a question.`
      : `This is your answer to picture ${work.number}. You can change it.`;
    $("reopened-text").textContent = about;
    const at = mine.findIndex((answer) => answer.key === work.key);
    $("earlier").hidden = Boolean(work.votes) || at === 0;
    $("later").hidden = Boolean(work.votes) || at < 0 || at === mine.length - 1;
    $("withdraw").hidden = Boolean(work.votes) || !work.answer;
  }
  $("done").hidden = Boolean(work.votes);
  $("done-text").textContent = earlier ? "Save the change" : "Done";
  $("done").classList.toggle("ready", work.label !== null);
  $("skip").hidden = Boolean(work.votes);
  $("back").hidden = Boolean(work.votes) || earlier;
  $("back").disabled = !earlier && !state.counts.mine && !talk.answered.size;
}

/** Say what the map is now, draw it, and send the draft a little later. */
function changed() {
  view.suggested !== current.untouched ? repaint() : view.update();
  tools.sketch();
  panel();
  draftSoon();
}

function repaint() {
  view.suggested = Boolean(current?.untouched);
  current?.mask?.changed();
  view.redraw();
}

function draftSoon() {
  clearTimeout(draftTimer);
  draftTimer = setTimeout(draftNow, PENDING);
}

function draftNow() {
  if (!draftTimer) return;
  clearTimeout(draftTimer);
  draftTimer = 0;
  if (!current?.mask || current.votes || saving) return;
  if (current.mask.step) draftSoon();
  else talk.put("draft", current.key, { person, query: state.query, ...current.saved() });
}

// Classes

function classButtons() {
  const names = state.classes;
  const signature = JSON.stringify(names);
  if ($("classes").dataset.names === signature) return;
  $("classes").dataset.names = signature;
  $("find").hidden = names.length <= MANY;
  $("classes").replaceChildren(
    ...names.map((name, i) => {
      const button = document.createElement("button");
      button.className = "class";
      button.dataset.name = name;
      const key = document.createElement("kbd");
      key.textContent = i < MANY ? i + 1 : "";
      const text = document.createElement("span");
      text.className = "text";
      text.textContent = name;
      const votes = document.createElement("span");
      votes.className = "votes";
      button.append(key, text, votes);
      button.title = i < MANY ? `${name} (${i + 1})` : name;
      if (i < MANY) button.setAttribute("aria-keyshortcuts", i + 1);
      button.addEventListener("click", () => chooseClass(name));
      return button;
    }),
  );
}

function chooseClass(name) {
  const work = current;
  if (!work || saving || name === undefined) return;
  if (work.votes) {
    settle(name);
    return;
  }
  work.classSeconds ??= work.clock.seconds;
  const before = work.proposed;
  work.label = name;
  const own = work.state.touched || (work.state.origin !== "model" && work.state.origin !== null) ||
    (work.state.origin === null && work.mask.any);
  if (work.mask && !own && work.proposed !== before && work.wants_map) {
    work.propose();
    repaint();
  }
  say(`Class: ${name}`);
  changed();
}

function search() {
  const words = $("search").value.trim().toLowerCase();
  const buttons = [...$("classes").children];
  for (const button of buttons) button.hidden = !button.dataset.name.toLowerCase().includes(words);
  const seen = buttons.filter((button) => !button.hidden);
  hot = words ? 0 : -1;
  point(seen);
  say(seen.length ? `${seen.length} ${seen.length === 1 ? "class" : "classes"} found.` : "No class has this name.");
}

function point(seen) {
  for (const button of $("classes").children) button.classList.toggle("hot", button === seen[hot]);
  seen[hot]?.scrollIntoView({ block: "nearest" });
}

$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  const seen = [...$("classes").children].filter((button) => !button.hidden);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    hot = Math.min(Math.max(hot + (event.key === "ArrowDown" ? 1 : -1), 0), seen.length - 1);
    point(seen);
    if (seen[hot]) say(seen[hot].dataset.name);
  } else if (event.key === "Enter") {
    if (!seen[Math.max(hot, 0)]) return;
    const { name } = seen[Math.max(hot, 0)].dataset;
    leaveSearch();
    chooseClass(name);
  } else if (event.key === "Escape") leaveSearch();
  else return;
  event.preventDefault();
  event.stopPropagation();
});

function leaveSearch() {
  $("search").value = "";
  search();
  say("");
  $("map").focus({ preventScroll: true });
}

// The model's map and the rules

function setThreshold(value) {
  if (!current?.untouched) return;
  current.percent = Math.min(Math.max(value, 1), 99);
  current.propose();
  repaint();
  changed();
}

function toggleHidden() {
  const work = current;
  if (!work?.mask || work.votes || work.suggestion === null || work.ask === "accept") return;
  tools.stop();
  if (work.state.hidden && !work.mask.any) {
    work.state = { ...work.state, hidden: false };
    work.propose();
    say("The model’s map is shown.");
  } else {
    work.change((mask) => mask.clear(), { origin: null, touched: false, hidden: true, points: [], box: null });
    say("The model’s map is hidden. You start from nothing.");
  }
  repaint();
  changed();
}

async function askRule(box, points) {
  const work = current;
  const call = ++ruleCalls;
  say("The map is being made…");
  $("stage").classList.add("busy");
  try {
    const body = { person, query: state.query, label: work.label, rule: $("rule").value || state.rules[0], box, points };
    const { runs } = await talk.ask(`/api/rule/${encodeURIComponent(work.key)}`, body);
    if (work !== current || call !== ruleCalls || work.closed) return;
    work.fromRule(box ? "box" : "points", runs, points, box);
    say(runs.length > 1 ? "Here is the map. You can go on, or correct it." : "The rule found nothing here.");
    repaint();
    changed();
  } catch (error) {
    refused(error);
  } finally {
    if (call === ruleCalls) $("stage").classList.remove("busy");
  }
}

// Answers

function body(work, more = {}) {
  return { person, query: state.query, ...work.saved(), sure: false, settles: false, ...more };
}

function finish(more = {}) {
  const work = current;
  if (!work || work.votes || saving) return;
  const start = performance.now();
  if (work.label === null) {
    say("Choose a class first.");
    $("class-part").classList.remove("asked");
    void $("class-part").offsetWidth;
    $("class-part").classList.add("asked");
    return;
  }
  tools.stop();
  send(work, body(work, more), start);
}

function accept() {
  const work = current;
  if (!work?.untouched || saving || work.votes) return;
  if (work.label === null) {
    work.classSeconds ??= work.clock.seconds;
    work.label = work.proposed;
  }
  finish();
}

function refuse() {
  const work = current;
  if (!work?.mask || work.ask !== "accept" || work.suggestion === null || saving) return;
  if (work.label === null) {
    finish();
    return;
  }
  work.change((mask) => mask.clear(), { origin: null, touched: false, hidden: true });
  finish({ sure: true });
}

/** Send an answer and go on. A map that the server may ask about is waited for. */
function send(work, saved, start) {
  clearTimeout(draftTimer);
  draftTimer = 0;
  work.clock.stop();
  const marked = (saved.runs ?? []).reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0);
  const share = marked / (work.width * work.height);
  const asks = work.wants_map && !saved.skipped && !saved.sure && (share === 0 || share > 0.8);
  const item = talk.put("answer", work.key, saved);
  item.number = work.number;
  if (asks && !talk.isAway) {
    saving = item;
    say("The answer is being saved…");
  } else goOn(start, saved.skipped ? `Picture ${work.number} is skipped.` : `Picture ${work.number} is done.`);
}

/** Show the picture that comes next. */
function goOn(start = performance.now(), text = "") {
  saving = null;
  const next = aside ?? ahead.shift() ?? null;
  aside = null;
  show(next, next ? start : null);
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
  if (reply.counts && state) state.counts = reply.counts;
  heading();
  if (saving === item) goOn(undefined, `Picture ${item.number} is done.`);
  else if (current) panel();
  refill();
  if (state && state.counts.answered + state.counts.skipped >= state.counts.images) pollSoon(300);
}

/** Ask back, or say why the server refused an answer. The picture is on the screen again. */
async function notTaken(item, error) {
  const { key, body: saved } = item;
  if (error.status === 410) {
    saving = null;
    if (current?.key === key) show(null);
    refused(error);
    return;
  }
  const here = saving === item && current?.key === key;
  saving = null;
  if (!here) await open(key, saved);
  if (current?.key !== key) return;
  current.clock.start();
  if (error.status !== 409) {
    say(error.message);
    panel();
    return;
  }
  current.question = true;
  panel();
  const { ask } = error.reply;
  $("sure-text").textContent = error.message;
  $("sure-invert").hidden = ask !== "inverted";
  $("sure-keep").textContent = ask === "empty" ? "Go on without a map" : "Keep it";
  $("sure-keep").classList.toggle("main", ask !== "inverted");
  const choice = await dialog("ask-sure", ask === "inverted" ? "sure-invert" : "sure-keep");
  if (current?.key !== key) return;
  if (choice === "invert") {
    current.change((mask) => mask.invert());
    repaint();
  }
  if (choice === "invert" || choice === "keep") finish({ sure: true });
  else {
    say("Change the map, and press Done again.");
    changed();
  }
}

/** Say what the server refused. After another query has begun, read the state again. */
function refused(error) {
  if (!(error instanceof Refused)) throw error;
  say(error.message);
  if (error.status === 410) poll();
}

async function skip() {
  if (!current || current.votes || saving) return;
  tools.stop();
  $("reason").value = current.reason;
  for (const button of $("reasons").children) button.setAttribute("aria-pressed", false);
  const work = current;
  const choice = await dialog("ask-skip", "reason");
  if (choice !== "ok" || work !== current) return;
  const start = performance.now();
  const { note } = work;
  const saved = { ...work.saved(), label: null, kind: null, runs: null, skipped: true, note };
  saved.reason = $("reason").value.trim();
  send(work, { person, query: state.query, ...saved, sure: false, settles: false }, start);
}

// Earlier answers

async function readMine() {
  await talk.drain();
  const path = `/api/mine?person=${encodeURIComponent(person)}&query=${state.query}`;
  mine = (await talk.ask(path)).answers;
}

/** Open a picture again. `saved` is an answer that the server did not take. */
async function open(key, saved = null, votes = null) {
  draftNow();
  let picture;
  try {
    picture = await talk.ask(`/api/open/${encodeURIComponent(key)}?person=${encodeURIComponent(person)}&query=${state.query}`);
  } catch (error) {
    refused(error);
    return;
  }
  const work = new Work(picture, saved ?? picture.draft ?? picture.answer);
  work.reopened = true;
  work.votes = votes;
  if (!(await loaded(work))) return;
  if (current && !current.reopened) aside = current;
  show(work);
  if (saved) draftSoon();
}

async function back(by = -1) {
  if (saving) return;
  try {
    await readMine();
  } catch (error) {
    refused(error);
    return;
  }
  const at = current?.reopened ? mine.findIndex((answer) => answer.key === current.key) : mine.length;
  const answer = mine[at + by];
  if (answer && at >= 0) await open(answer.key);
  else say(by < 0 ? "There is no earlier answer." : "There is no later answer.");
}

function comeBack() {
  if (!current?.reopened || saving) return;
  draftNow();
  goOn();
}

function withdraw(key) {
  talk.put("withdraw", key, { person, query: state.query });
  say("The answer is withdrawn. The picture comes again.");
  if (current?.key === key && current.reopened) {
    clearTimeout(draftTimer);
    draftTimer = 0;
    goOn(undefined, "The answer is withdrawn. The picture comes again.");
  }
}

function answerButton(text, detail, act) {
  const button = document.createElement("button");
  button.type = "button";
  const name = document.createElement("strong");
  name.textContent = text;
  const rest = document.createElement("span");
  rest.textContent = detail;
  button.append(name, rest);
  button.addEventListener("click", act);
  return button;
}

async function listAnswers() {
  if (!state || saving) return;
  try {
    await readMine();
  } catch (error) {
    refused(error);
    return;
  }
  $("list-title").textContent = "My answers";
  $("list-text").textContent = mine.length
    ? "Choose an answer to look at it or to change it."
    : "You have not answered yet in this round.";
  $("list-items").replaceChildren(
    ...mine.map(({ key, number, label, skipped, kind }) => {
      const row = document.createElement("li");
      const detail = skipped ? "skipped" : [label, KINDS[kind]].filter(Boolean).join(" · ");
      const take = document.createElement("button");
      take.type = "button";
      take.className = "quiet";
      take.textContent = "Withdraw";
      take.setAttribute("aria-label", `Withdraw the answer to picture ${number}`);
      take.addEventListener("click", () => {
        withdraw(key);
        row.remove();
      });
      row.append(
        answerButton(`Picture ${number}`, detail, () => {
          $("list").close();
          open(key);
        }),
        take,
      );
      return row;
    }),
  );
  await dialog("list");
}

async function listTies() {
  if (!state?.counts.ties || saving) return;
  let ties;
  try {
    ties = (await talk.ask(`/api/ties?query=${state.query}`)).ties;
  } catch (error) {
    refused(error);
    return;
  }
  $("list-title").textContent = "People disagree";
  $("list-text").textContent = "Look at a picture and choose its class. Your choice settles it.";
  $("list-items").replaceChildren(
    ...ties.map(({ key, number, votes }) => {
      const row = document.createElement("li");
      const detail = Object.entries(votes).map(([name, count]) => `${name}: ${count}`).join(" · ");
      row.append(
        answerButton(`Picture ${number}`, detail, () => {
          $("list").close();
          open(key, null, votes);
        }),
      );
      return row;
    }),
  );
  await dialog("list");
}

function settle(label) {
  const work = current;
  work.label = label;
  send(work, { ...body(work, { settles: true, sure: true }), kind: null, runs: null }, performance.now());
  say(`Picture ${work.number} is settled: ${label}`);
}

// Pictures to come

/** Decode a picture. It is tried again while the server is away. */
async function loaded(work) {
  for (;;) {
    if (await work.load(view.room)) return !work.closed;
    talk.lost(true);
    await new Promise((done) => setTimeout(done, 1000));
    if (work.closed) return false;
  }
}

function refill() {
  if (!state || state.stage !== "ask" || !person) return;
  if (filling) {
    filling.again = true;
    return;
  }
  const turn = (filling = { again: false });
  takeMore()
    .catch((error) => refused(error))
    .finally(() => {
      filling = null;
      if (turn.again) refill();
    });
}

async function takeMore() {
  await talk.drain();
  const asked = state.query;
  const own = [current, aside, ...ahead].filter((work) => work && !(work.reopened && work.answer));
  const held = own.map((work) => work.key);
  const { pictures } = await talk.ask("/api/take", { person, query: asked, count: 2, held });
  if (state.query !== asked) return;
  const done = talk.answered;
  for (const picture of pictures) {
    const here = [current, aside, ...ahead].some((work) => work?.key === picture.key);
    if (here || done.has(picture.key) || ahead.length >= 2) continue;
    const work = new Work(picture, picture.draft ?? picture.answer);
    if (!(await loaded(work))) return;
    if (state.query !== asked || talk.answered.has(picture.key)) {
      work.close();
      continue;
    }
    ahead.push(work);
    nothingLeft = false;
    if (!current && !aside) show(ahead.shift());
  }
  if (!current && !ahead.length) {
    nothingLeft = true;
    place();
    pollSoon(2000);
  }
}

function drop() {
  for (const work of [current, aside, ...ahead]) if (work) work.close();
  current?.clock.stop();
  clearTimeout(draftTimer);
  draftTimer = 0;
  current = aside = saving = null;
  ahead = [];
  nothingLeft = false;
  view.show([], null);
  tools.stop();
}

function heldKeys() {
  return [current, aside, ...ahead].filter((work) => work && !work.reopened).map((work) => work.key);
}

// The state of the run

async function poll() {
  clearTimeout(polling);
  let next;
  try {
    next = await talk.ask(`/api/state?person=${encodeURIComponent(person ?? "")}`);
  } catch (error) {
    refused(error);
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
  else place();
  if (next.stage === "ask" && !current) refill();
  pollSoon(next.stage === "learn" || next.stage === "classes" ? 2000 : nothingLeft ? 3000 : 15000);
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
    box.addEventListener(
      "close",
      () => {
        (focused?.isConnected && focused !== document.body ? focused : $("map")).focus({ preventScroll: true });
        done(box.returnValue);
      },
      { once: true },
    );
  });
}

async function askName() {
  const first = !person;
  $("person").value = person ?? "";
  $("name-cancel").hidden = first;
  do {
    const choice = await dialog("ask-name", "person");
    if (choice !== "ok" && !first) return;
  } while (!$("person").value.trim());
  const name = $("person").value.trim();
  if (name === person) return;
  draftNow();
  if (person && state) release();
  person = name;
  store.set("person", name);
  drop();
  heading();
  if (!first) poll();
}

async function addClass() {
  if (!state?.new_classes) return;
  $("new-class").value = "";
  if ((await dialog("ask-class", "new-class")) !== "ok") return;
  const name = $("new-class").value.trim();
  if (!name) return;
  try {
    const reply = await talk.ask("/api/classes", { person, query: state.query, names: [name] });
    state.classes = reply.classes;
    chooseClass(reply.classes.includes(name) ? name : undefined);
    panel();
  } catch (error) {
    refused(error);
  }
}

$("names").addEventListener("submit", async (event) => {
  event.preventDefault();
  const names = $("names-text").value.split("\n").map((name) => name.trim()).filter(Boolean);
  if (new Set(names).size < 2) {
    $("calm-text").textContent = "At least two different names are needed.";
    return;
  }
  try {
    await talk.ask("/api/classes", { person, query: state.query, names: [...new Set(names)] });
    poll();
  } catch (error) {
    $("calm-text").textContent = error.message;
  }
});

async function guide() {
  if (state?.instructions && !$("instructions").childElementCount) {
    try {
      const text = await (await fetch("/instructions")).text();
      const read = new DOMParser().parseFromString(text, "text/html");
      for (const image of read.querySelectorAll("img")) {
        const source = image.getAttribute("src") ?? "";
        if (!/^(\/|data:|blob:)/.test(source)) image.setAttribute("src", `/instructions/${source}`);
      }
      $("instructions").replaceChildren(...read.body.childNodes);
    } catch {
      $("instructions").replaceChildren();
    }
  }
  await dialog("guide");
}

for (const [i, text] of REASONS.entries()) {
  const button = document.createElement("button");
  button.type = "button";
  const key = document.createElement("kbd");
  key.textContent = i + 1;
  const name = document.createElement("span");
  name.textContent = text;
  button.append(key, name);
  button.addEventListener("click", () => {
    $("reason").value = text;
    for (const other of $("reasons").children) other.setAttribute("aria-pressed", other === button);
    $("ask-skip").querySelector("button.main").focus();
  });
  $("reasons").append(button);
}
$("ask-skip").addEventListener("keydown", (event) => {
  const typed = $("reason").value && document.activeElement === $("reason");
  const button = $("reasons").children[Number(event.key) - 1];
  if (!button || typed || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  button.click();
});

for (const [keys, text] of KEYS) {
  const name = document.createElement("dt");
  name.textContent = keys;
  const means = document.createElement("dd");
  means.textContent = text;
  $("keys").append(name, means);
}

// Buttons

for (const [name, [text, key]] of Object.entries(TOOLS)) {
  const button = document.createElement("button");
  button.className = "tool";
  button.dataset.name = name;
  button.title = `${text} (${key}): ${HELP[name]}`;
  button.setAttribute("aria-keyshortcuts", key);
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  icon.append(use);
  const label = document.createElement("span");
  label.textContent = text;
  button.append(icon, label);
  button.addEventListener("click", () => chooseTool(name));
  $("choice").append(button);
}

function undo(redo) {
  if (!current?.mask || current.votes || saving) return;
  if (!redo && tools.unpin()) return;
  tools.stop();
  if (current.undo(redo)) {
    repaint();
    changed();
    say(redo ? "Done again." : "Undone.");
  } else say(redo ? "There is nothing to do again." : "There is nothing to undo.");
}

function whole(draw, more) {
  if (!current?.mask || saving || !toolsHere().length) return;
  tools.stop();
  current.strokeSeconds ??= current.clock.seconds;
  current.change(draw, more);
  repaint();
  changed();
}

const clear = () =>
  whole((mask) => mask.clear(), { origin: null, touched: false, hidden: true, points: [], box: null });
const invert = () => whole((mask) => mask.invert());

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
  if (name === "opacity") {
    view.opacity = field.value / 100;
    view.redraw();
  } else {
    $("picture").style.filter = `brightness(${$("brightness").value / 100}) contrast(${$("contrast").value / 100})`;
  }
}

const LOOKS = { opacity: 45, brightness: 100, contrast: 100 };

function theme(dark) {
  if (dark !== null) document.documentElement.dataset.theme = dark ? "dark" : "light";
  const now = document.documentElement.dataset.theme;
  const isDark = now ? now === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").textContent = isDark ? "Light" : "Dark";
  view.redraw();
  return isDark;
}

function changeTheme() {
  const dark = !theme(null);
  store.set("theme", dark ? "dark" : "light");
  theme(dark);
}

function jump(id) {
  $(id).focus();
  $(id).select?.();
}

const CLICKS = {
  undo: () => undo(false),
  redo: () => undo(true),
  clear,
  invert,
  answers: listAnswers,
  "calm-answers": listAnswers,
  ties: listTies,
  who: askName,
  theme: changeTheme,
  help: guide,
  smaller: () => view.zoom(1 / 1.25),
  larger: () => view.zoom(1.25),
  fit: () => view.fit(),
  accept,
  refuse,
  hide: toggleHidden,
  draws: () => setErases(false),
  erases: () => setErases(true),
  done: () => finish(),
  skip,
  back: () => back(),
  earlier: () => back(-1),
  later: () => back(1),
  withdraw: () => withdraw(current.key),
  return: comeBack,
  add: addClass,
  plain: () => Object.entries(LOOKS).forEach(([name, value]) => setLook(name, value)),
};
for (const [id, act] of Object.entries(CLICKS)) $(id).addEventListener("click", act);

// A click leaves the focus on the picture: there Enter means Done.
document.addEventListener("mousedown", (event) => {
  if (event.target.closest("button") && !event.target.closest("dialog, form")) event.preventDefault();
});

$("size").addEventListener("input", () => setSize(Number($("size").value)));
$("threshold").addEventListener("input", () => setThreshold(Number($("threshold").value)));
for (const name of Object.keys(LOOKS)) $(name).addEventListener("input", () => setLook(name, $(name).value));
$("note").addEventListener("input", () => {
  if (!current) return;
  current.note = $("note").value;
  draftSoon();
});
$("note").addEventListener("keydown", (event) => {
  if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
    event.preventDefault();
    event.stopPropagation();
    $("map").focus({ preventScroll: true });
  }
});

// Keys

const PRESSES = {
  b: () => chooseTool("brush"),
  p: () => chooseTool("polygon"),
  r: () => chooseTool("rectangle"),
  f: () => chooseTool("fill"),
  o: () => chooseTool("box"),
  t: () => chooseTool("points"),
  h: () => chooseTool("hand"),
  e: () => setErases(!tools.erases),
  a: accept,
  n: refuse,
  x: toggleHidden,
  c: clear,
  i: invert,
  s: skip,
  l: listAnswers,
  u: listTies,
  d: changeTheme,
  j: askName,
  k: addClass,
  g: CLICKS.plain,
  m: () => jump("note"),
  w: () => {
    if (current?.reopened && current.answer && !current.votes) withdraw(current.key);
  },
  v: () => {
    $("look").open = !$("look").open;
    if ($("look").open) $("opacity-part").hidden ? jump("brightness") : jump("opacity");
  },
  y: () => {
    if (!$("rule-part").hidden) jump("rule");
  },
  "/": () => {
    if (!$("find").hidden) jump("search");
  },
  "?": guide,
  "+": () => view.zoom(1.25),
  "=": () => view.zoom(1.25),
  "-": () => view.zoom(1 / 1.25),
  _: () => view.zoom(1 / 1.25),
  0: () => view.fit(),
  "[": () => setSize(tools.radius / 1.2),
  "]": () => setSize(tools.radius * 1.2),
  "<": () => setThreshold(current.percent - 2),
  ">": () => setThreshold(current.percent + 2),
  ",": () => setLook("opacity", Number($("opacity").value) - 5),
  ".": () => setLook("opacity", Number($("opacity").value) + 5),
  "(": () => setLook("brightness", Number($("brightness").value) - 10),
  ")": () => setLook("brightness", Number($("brightness").value) + 10),
  "{": () => setLook("contrast", Number($("contrast").value) - 10),
  "}": () => setLook("contrast", Number($("contrast").value) + 10),
  Enter: () => {
    if (!tools.close()) finish();
  },
  Backspace: (event) => {
    if (!tools.unpin()) back(event.shiftKey ? 1 : -1);
  },
  Escape: () => {
    if (!tools.stop()) comeBack();
  },
};
const WITHOUT_PICTURE = ["l", "j", "d", "u", "?"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || !state) return;
  const at = event.target;
  if (at.matches?.("textarea, select, input:not([type=range])")) {
    if (event.key === "Escape") $("map").focus({ preventScroll: true });
    return;
  }
  const third = event.getModifierState("AltGraph");
  if ((event.ctrlKey || event.metaKey) && !third) {
    const key = event.key.toLowerCase();
    if (key === "z") undo(event.shiftKey);
    else if (key === "y") undo(true);
    else return;
    event.preventDefault();
    return;
  }
  if (event.altKey && !third && event.key !== " ") return;
  const onButton = at.closest?.("button, summary, a");
  if (onButton && (event.key === "Enter" || event.key === " ")) return;
  if (event.key in ARROWS) {
    if (at !== view.layer && at !== document.body) return;
    if (!current) return;
    event.preventDefault();
    tools.step(...ARROWS[event.key], event.shiftKey);
    return;
  }
  if (event.key === " ") {
    if (!current) return;
    event.preventDefault();
    if (event.repeat) return;
    if (!tools.tap(event.altKey)) {
      tools.space = true;
      $("stage").classList.add("space");
      tools.placeRing(null);
    }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = Number(key);
  if (digit >= 1 && digit <= MANY && key.length === 1) {
    if (current) chooseClass(state.classes[digit - 1]);
    return;
  }
  const act = Object.hasOwn(PRESSES, key) ? PRESSES[key] : null;
  if (!act || (!current && !WITHOUT_PICTURE.includes(key))) return;
  event.preventDefault();
  act(event);
});

document.addEventListener("keyup", (event) => {
  if (event.key !== " ") return;
  tools.space = false;
  $("stage").classList.remove("space");
});

// Time and leaving

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
  addEventListener(
    kind,
    () => {
      lastActive = performance.now();
      current?.clock.tick();
    },
    { capture: true, passive: true },
  );
}

document.addEventListener("visibilitychange", () => {
  current?.clock.show(document.hidden);
  if (document.hidden) draftNow();
  else if (state) pollSoon(100);
});

function release() {
  const keys = heldKeys();
  if (!keys.length || !state) return;
  const text = JSON.stringify({ person, query: state.query, keys });
  navigator.sendBeacon("/api/release", new Blob([text], { type: "text/plain" }));
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
  if (state?.stage === "ask" && current && performance.now() - lastActive < 600000) refill();
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
  const kept = store.get("theme");
  theme(kept === null ? null : kept === "dark");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(null));
  tools.size(Number(store.get("size")) || 12);
  for (const [name, value] of Object.entries(LOOKS)) setLook(name, store.get(name) ?? value);
  if (!person) await askName();
  await poll();
  if (!state) return;
  if (state.instructions && store.get("read") !== state.run) {
    store.set("read", state.run);
    guide();
  }
}

start();
