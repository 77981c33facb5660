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
const table = make("div", {class: "numbers"});
const numbers = make("details", {ontoggle: () => refresh(true)}, make("summary", {}, "Numbers as a table"), table);
const exports = make("div", {class: "exports", role: "group", "aria-label": "Export what is on screen"},
  ...["SVG", "PNG", "CSV", "JSON"].map(kind => make("button",
    {type: "button", onclick: () => save(kind), title: `Save what is on screen as ${kind}`}, kind)),
  make("button", {type: "button", class: "link", title: "Copy the address of this view, or the line that opens it",
    onclick: copyLink}, "Copy link"),
  make("button", {type: "button", class: "theme", title: "Light, dark, or as the system", onclick: nextTheme},
    "Theme"));
main.replaceChildren(make("header", {}, make("h1", {}, D.title), tabs, exports), controls, stage, tip, spoken,
  make("footer", {}, caption, check, numbers));

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
const blank = full => ({cells: [], rows: [], areas: [], caption: "", full, linked: () => []});
let drawn = blank(false);
const cellOf = id => drawn.cells.find(cell => cell.id === id);
function draw(measured, whole = false) { // whole: draws all of the view, for paper
  readLook();
  if (stage.clientWidth < 8 || stage.clientHeight < 8) return; // the page is not laid out yet, or hidden
  const w = stage.clientWidth, dpr = Math.min(window.devicePixelRatio || 1, 3);
  const height = measured || DRAW[S.view](SILENT, w - 4, blank(false), [0, Infinity]);
  spacer.style.height = `${Math.ceil(height) + 6}px`;
  const tall = whole ? height + 6 : stage.clientHeight;
  const top = whole ? 0 : clamp(stage.scrollTop, 0, Math.max(0, height + 6 - tall));
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
}
function refresh(sameControls = false) {
  if (!sameControls) buildControls();
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
  draw();
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

// Pointer and keyboard

function cellUnder(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - 2;
  const y = event.clientY - box.top - 2 + parseFloat(canvas.style.top);
  const within = c => x >= c.x && x < c.x + c.w + 1.5 && y >= c.y && y < c.y + c.h + 3;
  const area = drawn.areas.find(within);
  return area ? area.at(x - area.x, y - area.y) : drawn.cells.find(within);
}
function showTip(text, x, y) {
  tip.textContent = text;
  tip.style.display = "block";
  tip.style.left = `${clamp(x + 12, 4, Math.max(4, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? Math.max(2, y - tip.offsetHeight - 8) : y + 18}px`;
}
function hideTip() { tip.style.display = "none"; }
canvas.addEventListener("pointermove", event => {
  const cell = cellUnder(event);
  canvas.classList.toggle("acts", !!cell?.act);
  markLinked(cell);
  if (cell) showTip(cell.label, event.clientX, event.clientY); else hideTip();
});
canvas.addEventListener("pointerleave", () => { hideTip(); markLinked(null); });
canvas.addEventListener("click", event => {
  const cell = cellUnder(event);
  if (cell?.act) cell.act(event); else if (cell) showTip(cell.label, event.clientX, event.clientY);
});
let marks = []; // frames around what shows the same as the cell under the pointer
function markLinked(cell) {
  const same = cell?.link === undefined ? [] : [
    ...drawn.cells.filter(other => other.link === cell.link && !other.column), ...drawn.linked(cell.link)].slice(0, 60);
  for (const mark of marks) mark.remove();
  marks = same.map(({x, y, w, h}) => {
    const mark = make("div", {class: "mark"});
    Object.assign(mark.style, {left: `${x}px`, top: `${y}px`, width: `${w + 4}px`, height: `${h + 4}px`});
    return mark;
  });
  stage.append(...marks);
}
canvas.addEventListener("keydown", event => {
  const way = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  if (event.key === "Escape") { S.cursor = null; S.pinned = []; return refresh(true); }
  const acts = event.key === "Enter" || event.key === " ";
  if (!way && !acts || !drawn.cells.length) return;
  event.preventDefault();
  if (acts) return cellOf(S.cursor)?.act?.(event);
  const from = cellOf(S.cursor), cell = cellOf(from?.to?.[event.key]) || nearestCell(from, way);
  S.cursor = cell.id;
  if (cell.y < stage.scrollTop) stage.scrollTop = cell.y - 8;
  else if (cell.y + cell.h > stage.scrollTop + stage.clientHeight)
    stage.scrollTop = cell.y + cell.h - stage.clientHeight + 12;
  draw(drawn.height);
  markLinked(cell);
  const box = canvas.getBoundingClientRect();
  showTip(cell.label, box.left + cell.x + cell.w, box.top + cell.y + cell.h - parseFloat(canvas.style.top));
  spoken.textContent = cell.label;
});
function nearestCell(from, way) { // the nearest cell in a direction, or without a start the first token or cell
  if (!from) return cellOf("t0") || drawn.cells[0];
  const mid = c => [c.x + c.w / 2, c.y + c.h / 2], [x, y] = mid(from);
  let best = from, least = Infinity;
  for (const cell of drawn.cells) {
    const [dx, dy] = [mid(cell)[0] - x, mid(cell)[1] - y];
    const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1] + dy * way[0]);
    if (ahead > 0.5 && ahead + 4 * aside < least) { least = ahead + 4 * aside; best = cell; }
  }
  return best;
}
let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
stage.addEventListener("scroll", drawSoon);
new ResizeObserver(drawSoon).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSoon);
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; draw(undefined, true); });
addEventListener("afterprint", () => { document.documentElement.dataset.theme = S.theme; draw(); });
function nextTheme() {
  S.theme = {auto: "dark", dark: "light", light: "auto"}[S.theme];
  document.documentElement.dataset.theme = S.theme;
  draw();
}

const faultTexts = faults(), largestError = Math.max(...D.series.flatMap(series => series.records.map(r => r.error)));
check.textContent = faultTexts.length ? `These weights cannot be right: ${faultTexts.join("; ")}.` :
  "Checked: in every record the weights of each token add up to 1 " +
    `(largest difference ${largestError.toExponential(0)})` +
    (D.series.some(series => series.mask === "exclude") ? ", excluded members have exactly 0." : ".");
check.classList.toggle("wrong", faultTexts.length > 0);
if (faultTexts.length) check.setAttribute("role", "alert");
refresh();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
