// The rating page: a name, then one pair after another, then a file to save
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const MAIN = document.getElementById("rating"), STORE = `studykit-rating-${DATA.page}`;
const KEYS = {1: 0, 2: 1, 0: 2}; // what a key chooses: left, right, or neither
const PAIRS = new Map(DATA.pairs.map(pair => [pair.id, pair]));
for (const [id, of] of Object.entries(DATA.repeats)) PAIRS.set(id, {...PAIRS.get(of), id, of});
let kept = read(), rater = "", order = [], place = 0, since = 0, lost = false;

function make(tag, options = {}, ...children) { // texts are never read as HTML
  const {on, ...given} = options, element = document.createElement(tag);
  for (const [name, value] of Object.entries(given))
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  if (on) element.addEventListener(tag === "form" ? "submit" : "click", on);
  element.append(...children);
  return element;
}
function read() { // the answers in this browser: rater -> pair -> answer
  try { return JSON.parse(localStorage.getItem(STORE)) || {}; } catch { return {}; }
}
function keep(answer) {
  const stored = read(); // another tab may have added to it
  kept = {...stored, [rater]: {...stored[rater], ...kept[rater], [answer.pair]: answer}};
  try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { lost = true; }
}
const answers = () => kept[rater];

// Each rater has an order and sides of their own, which follow from the name: after a reload they are the same.
function numbers(text) { // a stream of numbers in [0, 1) that a text begins
  let state = 2166136261;
  for (const unit of text) state = Math.imul(state ^ unit.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
function shuffled(items, random) {
  const mixed = [...items];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
  }
  return mixed;
}
function arranged(name) { // a pair that comes twice is in the first third, and again in the last
  const random = numbers(`${DATA.page} ${name}`), mirrored = random() < 0.5;
  const again = Object.keys(DATA.repeats), early = new Set(Object.values(DATA.repeats));
  const others = shuffled(DATA.pairs.map(pair => pair.id).filter(id => !early.has(id)), random);
  const third = Math.ceil((others.length + early.size + again.length) / 3);
  const first = shuffled([...early, ...others.splice(0, Math.max(0, third - early.size))], random);
  const last = shuffled([...again, ...others.splice(0, Math.max(0, third - again.length))], random);
  return [...first, ...others, ...last].map(id => ({id, left: mirrored !== Boolean(PAIRS.get(id).of) ? "second" : "first"}));
}

function start(name) {
  rater = name;
  kept[rater] ||= {};
  order = arranged(name);
  show(order.length);
}
function show(at) { // a pair, though none after the first that has no answer; after the last pair the end
  const open = order.findIndex(({id}) => !answers()[id]);
  place = Math.min(Math.max(at, 0), open < 0 ? order.length : open);
  since = performance.now();
  if (place === order.length) finish(); else pair();
  scrollTo(0, 0);
}
function choose(which) {
  const {id, left} = order[place], right = left === "first" ? "second" : "first";
  const before = answers()[id], seconds = Math.round((performance.now() - since) / 100) / 10 + (before?.seconds || 0);
  keep({pair: id, choice: [left, right, "tie"][which], left, seconds});
  show(place + 1);
}

function code(pieces) {
  const text = pieces.map(([, text]) => text).join("");
  if (!text.trim()) return make("pre", {className: "empty"}, text ? "(only white space)" : "(empty)");
  return make("pre", {tabIndex: 0}, ...pieces.map(([kind, text]) => kind ? make("span", {className: kind}, text) : text));
}
function head() {
  const done = order.filter(({id}) => answers()[id]).length;
  return make("header", {}, make("span", {role: "status"}, `${done} of ${order.length} answered`),
    make("progress", {value: done, max: order.length, "aria-label": "Answered pairs"}), make("span", {}, rater),
    ...done && place < order.length ? [make("button", {on: save}, "Save")] : [],
    ...lost ? [make("strong", {}, "This browser keeps no answers: save them before you close the page.")] : []);
}
function pair() {
  const {id, left} = order[place], shown = PAIRS.get(id), chosen = answers()[id]?.choice;
  const sides = [left, left === "first" ? "second" : "first", "tie"];
  const panes = sides.slice(0, 2).map((side, i) => make("section", {className: chosen === side ? "chosen" : "",
    "aria-label": `Completion ${i + 1}`}, make("h2", {}, String(i + 1)), code(shown[side])));
  const reference = shown.reference.length ? [make("details", {}, make("summary", {}, "Show the reference"), code(shown.reference))] : [];
  const button = (which, key, text) => make("button", {className: "choice", on: () => choose(which),
    "aria-pressed": String(chosen === sides[which])}, text, " ", make("kbd", {}, key));
  MAIN.replaceChildren(head(), make("p", {className: "question"}, DATA.question),
    make("section", {className: "task"}, make("h2", {}, "Task"), make("pre", {tabIndex: 0}, shown.prompt), ...reference),
    make("div", {className: "pair"}, ...panes),
    make("nav", {"aria-label": "Your choice"}, button(0, "1", "1 is better"), button(2, "0", "No difference"),
      button(1, "2", "2 is better"),
      ...place ? [make("button", {on: () => show(place - 1)}, "Back ", make("kbd", {}, "←"))] : [],
      ...chosen ? [make("button", {on: () => show(place + 1)}, "Next ", make("kbd", {}, "→"))] : []));
}
function finish() {
  MAIN.replaceChildren(head(), make("h1", {}, `Thank you. All ${order.length} pairs are answered.`),
    make("p", {}, "Save your answers as a file, and send it to the person from whom you have this page."),
    make("form", {on: event => { event.preventDefault(); save(); }}, make("button", {className: "main"}, "Save my answers")),
    make("nav", {}, make("button", {on: () => show(order.length - 1)}, "Back ", make("kbd", {}, "←"))));
}
function save() {
  const list = order.map(({id}) => answers()[id]).filter(Boolean);
  const text = JSON.stringify({format: DATA.format, page: DATA.page, rater, answers: list}, null, 1);
  const link = make("a", {href: URL.createObjectURL(new Blob([text], {type: "application/json"}))});
  link.download = `answers-${DATA.page}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 4000);
}
function welcome() {
  const name = make("input", {maxLength: 60, required: true, autocomplete: "off", id: "rater"});
  const known = Object.keys(kept).filter(one => Object.keys(kept[one]).length);
  const begin = event => { event.preventDefault(); if (name.value.trim()) start(name.value.trim()); };
  MAIN.replaceChildren(make("h1", {}, document.title),
    make("p", {}, `You will see ${PAIRS.size} pairs of texts that language models wrote. ${DATA.question} `,
      "If you see no difference that matters, say so."),
    make("p", {}, "Judge what you see; do not run it. You can stop at any time: this browser keeps your answers, and this ",
      "page sends nothing. At the end you save them as a file."),
    make("form", {on: begin}, make("label", {}, "Your name, or another word for you", name),
      make("button", {className: "main"}, "Begin")),
    ...known.length ? [make("p", {className: "note"}, "Or continue:"), make("div", {className: "raters"},
      ...known.map(one => make("button", {on: () => start(one)}, `${one} (${Object.keys(kept[one]).length} of ${PAIRS.size})`)))] : []);
  name.focus();
}
addEventListener("keydown", event => {
  if (!rater || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if (event.key === "ArrowLeft" || event.key === "Backspace") show(place - 1);
  else if (event.key === "ArrowRight") show(place + 1);
  else if (place < order.length && event.key in KEYS) choose(KEYS[event.key]);
  else return;
  event.preventDefault();
});
welcome();
document.documentElement.dataset.ready = "true";
