// The page

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
const main = document.getElementById("explorer");
const tabs = make("div", {role: "tablist", "aria-label": "Views"}), controls = make("div", {class: "controls"});
const canvas = make("canvas", {tabindex: 0, role: "application", "aria-roledescription": "figure"});
const spacer = make("div", {class: "spacer"}), stage = make("div", {class: "stage", role: "tabpanel"}, spacer, canvas);
const tip = make("div", {class: "tip"}), spoken = make("div", {class: "spoken", "aria-live": "polite"});
const caption = make("p", {class: "caption"}), check = make("p", {class: "check"});
const stands = make("details", {class: "stands"}, make("summary", {}, "What this stands on"), make("div"));
const table = make("div", {class: "numbers"});
const numbers = make("details", {ontoggle: () => refresh(true)}, make("summary", {}, "Numbers as a table"), table);
const KEYS = { // what keys do, by their names in the list
  "arrow keys": "move from cell to cell of the picture", Enter: "show the tokens of a cell, or pin a token",
  "j, k": "next or previous sample", "[, ]": "layer below or above", "a, b": "next series as A or B",
  Esc: "unpin", ...D.live ? {"Ctrl Enter": "run the model on your own text"} : {},
  "Alt ↑, Alt ↓": "move the member whose box is in focus", "?": "this list"};
const keyList = make("dialog", {class: "keys", "aria-label": "Keys", onclick: () => keyList.close()},
  make("dl", {}, ...Object.entries(KEYS).flatMap(([key, words]) => [make("dt", {}, key), make("dd", {}, words)])));
function showKeys() { if (!keyList.open) keyList.showModal(); }
const exports = make("div", {class: "exports", role: "group", "aria-label": "Export what is on screen"},
  ...["SVG", "PNG", "CSV", "JSON"].map(kind => make("button",
    {type: "button", onclick: () => save(kind), title: `Save what is on screen as ${kind}`}, kind)),
  make("select", {class: "more", "aria-label": "More ways to save or copy", onchange: event => {
    save(event.target.value);
    event.target.value = "";
  }}, make("option", {value: ""}, "More …"),
  ...["PDF 3.3 in", "PDF 6.9 in"].map(kind => make("option", {value: kind}, `Save ${kind} wide, for paper`)),
  ...Object.keys(COPIES).map(kind => make("option", {value: kind}, `Copy as ${kind}`))),
  make("button", {type: "button", class: "link", title: "Copy the address of this view, or the line that opens it",
    onclick: copyLink}, "Copy link"),
  make("button", {type: "button", class: "theme", title: "Light, dark, or as the system", onclick: nextTheme},
    "Theme"),
  make("button", {type: "button", class: "help", title: "The keys of this page", "aria-label": "Keys",
    onclick: showKeys}, "?"));
main.replaceChildren(make("header", {}, make("h1", {}, D.title), tabs, exports), controls, stage, tip, spoken,
  keyList, make("footer", {}, caption, check, stands, numbers));

for (const [name, label] of Object.entries(VIEWS)) tabs.append(make("button",
  {type: "button", role: "tab", id: `tab-${name}`, onclick: () => { S.view = name; refresh(); }}, label));
tabs.addEventListener("keydown", event => {
  const names = Object.keys(VIEWS), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!step) return;
  S.view = names[(names.indexOf(S.view) + step + names.length) % names.length];
  refresh();
  document.getElementById(`tab-${S.view}`).focus();
});

// linked(link): boxes, beside those of cells, that show the same as the cells with this link
// stands: sentences on the runs behind the numbers; room: the height in sight, 0 if the view may have any
const blank = (full, room = Math.max(0, stage.clientHeight - 8)) => (
  {cells: [], rows: [], areas: [], caption: "", stands: [], full, room, linked: () => []});
let drawn = blank(false);
const cellOf = id => drawn.cells.find(cell => cell.id === id);
let isPrinting = false; // while a page is printed, all of the view is drawn, whatever else asks for a drawing
function draw(measured) {
  readLook();
  if (stage.clientWidth < 8 || stage.clientHeight < 8) return; // the page is not laid out yet, or hidden
  const w = stage.clientWidth, dpr = Math.min(window.devicePixelRatio || 1, 3);
  const height = measured || DRAW[S.view](SILENT, w - 4, blank(false), [0, Infinity]);
  spacer.style.height = `${Math.ceil(height) + 6}px`;
  const tall = isPrinting ? height + 6 : stage.clientHeight;
  const top = isPrinting ? 0 : clamp(stage.scrollTop, 0, Math.max(0, height + 6 - tall));
  canvas.width = w * dpr; canvas.height = tall * dpr;
  Object.assign(canvas.style, {width: `${w}px`, height: `${tall}px`, top: `${top}px`});
  const context = canvas.getContext("2d"), pen = new CanvasPen(context);
  context.scale(dpr, dpr);
  context.translate(2, 2 - top);
  drawn = {...blank(numbers.open), height};
  DRAW[S.view](pen, w - 4, drawn, [top, top + tall]);
  const cell = cellOf(S.cursor);
  if (cell) pen.rect(cell.x - 1, cell.y - 1, cell.w + 2, cell.h + 2, null, LOOK.accent, 3);
  canvas.drawn = drawn; // for tests of the page
  canvas.setAttribute("aria-label", `${VIEWS[S.view]}. ${drawn.caption} Arrow keys move from cell to cell.`);
  caption.textContent = drawn.caption;
  stands.hidden = !drawn.stands.length;
  stands.lastChild.replaceChildren(...drawn.stands.map(sentence => make("p", {}, sentence)));
}
function refresh(sameControls = false, height = undefined) { // height: of the view, if it is known
  if (!sameControls) { readLook(); buildControls(); }
  const slider = document.getElementById("choose-layer"), {layers} = focus();
  if (slider) slider.value = S.layer;
  slider?.setAttribute("aria-valuetext", layers[clamp(S.layer, 0, layers.length - 1)]);
  for (const name of Object.keys(VIEWS)) {
    const tab = document.getElementById(`tab-${name}`);
    tab.setAttribute("aria-selected", name === S.view);
    tab.tabIndex = name === S.view ? 0 : -1;
  }
  stage.setAttribute("aria-labelledby", `tab-${S.view}`);
  hideTip();
  markLinked(null);
  draw(height);
  tabulate();
  writeAddress();
}
function tabulate() { // the first rows, for screen readers
  if (!numbers.open) return table.replaceChildren();
  const shown = drawn.rows.slice(0, 600), names = columnsOf(drawn.rows);
  const words = value => typeof value === "number" ? String(+value.toPrecision(5)) : String(value ?? "");
  const head = names.map(name => make("th", {scope: "col"}, name.replaceAll("_", " ")));
  const body = shown.map(row => make("tr", {}, ...names.map(name => make("td", {}, words(row[name])))));
  table.replaceChildren(
    make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)),
    drawn.rows.length > shown.length ? `… ${number(drawn.rows.length - shown.length)} more rows in the CSV` : "");
}

let waiting = false, known; // known: the height of the view, if all that asked for a drawing know it
function drawSoon(height) { // height: of the view where nothing has changed it, as measuring takes as long as drawing all
  known = waiting && known === undefined ? undefined : height;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(known); });
}
stage.addEventListener("scroll", () => drawSoon(drawn.height));
new ResizeObserver(() => drawSoon()).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawSoon());
addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  isPrinting = stands.open = true;
  draw();
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = S.theme;
  isPrinting = stands.open = false;
  draw();
});
function nextTheme() {
  S.theme = {auto: "dark", dark: "light", light: "auto"}[S.theme];
  document.documentElement.dataset.theme = S.theme;
  refresh();
}
