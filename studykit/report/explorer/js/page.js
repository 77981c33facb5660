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
  make("button", {type: "button", class: "theme", title: "Light, dark, or as the system", onclick: turn}, "Theme"));
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

function select(key, label, options, parse = String, value = S[key]) { // options: [value, words]
  const box = make("select", {id: `choose-${key}`,
    onchange: event => { S[key] = parse(event.target.value); refresh(); }});
  box.append(...options.map(([value, words]) => make("option", {value}, words)));
  box.value = String(value);
  return make("label", {}, make("span", {}, label), box);
}
function choices() {
  if (+S.colour >= focus().members.length) S.colour = "winner"; // another series has fewer
  const series = focus(), view = S.view, runs = D.series.map((s, i) => [i, s.label]), parts = [];
  const ofKind = k => D.pools[S.pool].reduce((sum, p) => sum + series.records[0].counts[p][k], 0);
  if (several && view === "layers") parts.push(select("b", "Run", runs, Number));
  if (several && (view === "compare" || view === "tokens"))
    parts.push(select("a", "A", runs, Number), select("b", "B", runs, Number));
  if (several && view === "tokens") parts.push(select("show", "Show", [["a", "A"], ["b", "B"], ["diff", "B − A"]]));
  if (SEEDS.length > 1) parts.push(select("seed", "Seed",
    [["mean", view === "tokens" ? "the first" : "mean of all"], ...SEEDS.map((seed, i) => [i, seed])],
    v => v === "mean" ? v : SEEDS[+v], S.seed === "mean" ? "mean" : SEEDS.indexOf(S.seed)));
  const samples = D.texts.map((text, i) => [i, `${i + 1}: ${text.id}`]);
  if (samples.length) parts.push(view === "tokens" ?
    select("sample", "Sample", samples, Number, S.sample >= 0 ? S.sample : held()[0]) :
    select("sample", "Sample", [[-1, `all ${number(series.n)}`], ...samples], Number));
  parts.push(select("pool", "Tokens",
    Object.keys(D.pools).map(name => [name, name === "both" ? "prompt and completion" : name])));
  parts.push(select("kind", "Kind", [[-1, "every kind"],
    ...D.kinds.map((name, k) => [k, S.sample < 0 ? `${name} (${number(ofKind(k))})` : name])], Number));
  parts.push(select("quantity", "Quantity", [["weight", "weight"], ["share", "norm-weighted"]]));
  if (view !== "depth") parts.push(select("scale", "Colours", [["full", "0 to 100 %"], ["most", "0 to largest"]]));
  if (view === "all") parts.push(select("by", "Panels", [["run", "by run"], ["member", "by member"]]));
  if (view === "tokens") {
    parts.push(select("colour", "Colour by", [["winner", S.show === "diff" ? "target" : "winner"],
      ...series.members.map((_, m) => [m, named(series, m)])]));
    const slider = make("input", {type: "range", id: "choose-layer", min: 0, max: series.layers.length - 1, step: 1,
      oninput: event => { S.layer = +event.target.value; refresh(true); }});
    slider.value = S.layer;
    const search = make("input", {type: "search", id: "choose-query", placeholder: "text in tokens",
      oninput: event => { S.query = event.target.value; find(); }});
    search.value = S.query;
    parts.push(make("label", {class: "slider"}, make("span", {}, "Layer"), slider),
      make("label", {}, make("span", {}, "Search"), search));
  }
  const active = document.activeElement?.id;
  controls.replaceChildren(...parts);
  if (active?.startsWith("choose-")) document.getElementById(active)?.focus();
}
function find() { // to the first match
  refresh(true);
  const here = tokensOf(), first = here.why ? undefined : Math.min(...matches(here.sample));
  const cell = cellOf(`t${first}`);
  if (cell && (cell.y < stage.scrollTop || cell.y + cell.h > stage.scrollTop + stage.clientHeight))
    stage.scrollTop = cell.y - stage.clientHeight / 3;
}

const blank = full => ({cells: [], rows: [], areas: [], caption: "", full});
let drawn = blank(false);
const cellOf = id => drawn.cells.find(cell => cell.id === id);
function draw(measured, whole = false) { // whole: on paper nothing scrolls
  look();
  if (stage.clientWidth < 8 || stage.clientHeight < 8) return; // not laid out: in a hidden tab, or out of sight
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
  canvas.drawn = drawn; // for whoever tests the page
  canvas.setAttribute("aria-label", `${VIEWS[S.view]}. ${drawn.caption} Arrow keys move from cell to cell.`);
  caption.textContent = drawn.caption;
}
function refresh(kept = false) { // kept: the choices stay as they are
  if (!kept) choices();
  const slider = document.getElementById("choose-layer"), {layers} = focus();
  if (slider) slider.value = S.layer;
  slider?.setAttribute("aria-valuetext", layers[clamp(S.layer, 0, layers.length - 1)]);
  for (const name of Object.keys(VIEWS)) {
    const tab = document.getElementById(`tab-${name}`);
    tab.setAttribute("aria-selected", name === S.view);
    tab.tabIndex = name === S.view ? 0 : -1;
  }
  stage.setAttribute("aria-labelledby", `tab-${S.view}`);
  hide();
  draw();
  tabulate();
}
function tabulate() { // the first rows, for readers that do not see
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

function under(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - 2;
  const y = event.clientY - box.top - 2 + parseFloat(canvas.style.top);
  const within = c => x >= c.x && x < c.x + c.w + 1.5 && y >= c.y && y < c.y + c.h + 3;
  const area = drawn.areas.find(within);
  return area ? area.at(x - area.x, y - area.y) : drawn.cells.find(within);
}
function tell(text, x, y) {
  tip.textContent = text;
  tip.style.display = "block";
  tip.style.left = `${clamp(x + 12, 4, Math.max(4, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? Math.max(2, y - tip.offsetHeight - 8) : y + 18}px`;
}
function hide() { tip.style.display = "none"; }
canvas.addEventListener("pointermove", event => {
  const cell = under(event);
  canvas.classList.toggle("acts", !!cell?.act);
  if (cell) tell(cell.say, event.clientX, event.clientY); else hide();
});
canvas.addEventListener("pointerleave", hide);
canvas.addEventListener("click", event => {
  const cell = under(event);
  if (cell?.act) cell.act(); else if (cell) tell(cell.say, event.clientX, event.clientY);
});
canvas.addEventListener("keydown", event => {
  const way = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  if (event.key === "Escape") { S.cursor = null; S.token = -1; return refresh(true); }
  const acts = event.key === "Enter" || event.key === " ";
  if (!way && !acts || !drawn.cells.length) return;
  event.preventDefault();
  if (acts) return cellOf(S.cursor)?.act?.();
  const from = cellOf(S.cursor), cell = cellOf(from?.to?.[event.key]) || next(from, way);
  S.cursor = cell.id;
  if (cell.y < stage.scrollTop) stage.scrollTop = cell.y - 8;
  else if (cell.y + cell.h > stage.scrollTop + stage.clientHeight)
    stage.scrollTop = cell.y + cell.h - stage.clientHeight + 12;
  draw(drawn.height);
  const box = canvas.getBoundingClientRect();
  tell(cell.say, box.left + cell.x + cell.w, box.top + cell.y + cell.h - parseFloat(canvas.style.top));
  spoken.textContent = cell.say;
});
function next(from, way) { // the nearest cell that lies that way; the first one, of the text if there is one, from none
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
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
stage.addEventListener("scroll", soon);
new ResizeObserver(soon).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; draw(undefined, true); });
addEventListener("afterprint", () => { document.documentElement.dataset.theme = S.theme; draw(); });
function turn() {
  S.theme = {auto: "dark", dark: "light", light: "auto"}[S.theme];
  document.documentElement.dataset.theme = S.theme;
  draw();
}

// Export

function save(kind) {
  const name = `fusion-${S.view}-${focus().label}`.replace(/[^\w-]+/g, "_").slice(0, 80);
  const give = blob => {
    const link = make("a", {href: URL.createObjectURL(blob), download: `${name}.${kind.toLowerCase()}`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 4000);
  };
  const w = stage.clientWidth - 4, whole = blank(true);
  const height = DRAW[S.view](SILENT, w, whole, [0, Infinity]) + 2 * LOOK.em;
  if (kind === "CSV") give(new Blob([csv(whole.rows)], {type: "text/csv"}));
  else if (kind === "JSON") give(new Blob([JSON.stringify(told(whole), null, 1)], {type: "application/json"}));
  else picture(kind, w, height, whole.caption, give);
}
const columnsOf = rows => [...new Set(rows.flatMap(Object.keys))]; // a row may lack some
function csv(rows) { // a spreadsheet would compute text that begins like a formula
  const field = value => typeof value === "number" ? String(value) :
    `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const names = columnsOf(rows);
  return [names.join(","), ...rows.map(row => names.map(name => field(row[name])).join(","))].join("\n") + "\n";
}
function told(whole) { // the rows, and all that tells what they are of
  const of = {layers: [focus()], compare: [D.series[S.a], D.series[S.b]],
    tokens: S.show === "diff" ? [D.series[S.a], D.series[S.b]] : [focus()]}[S.view] || D.series;
  const runs = records => records.map(({seed, checkpoint, base}) => ({seed, checkpoint, base}));
  const series = of.map(({label, method, phase, placement, target, mask, masked, n, records}) =>
    ({label, method, phase, placement, target, mask, masked, samples: n, records: runs(records)}));
  const sample = S.view === "tokens" ? tokensOf().sample ?? S.sample : S.sample;
  return {title: D.title, view: S.view, quantity: S.quantity, tokens: S.pool, seed: S.seed,
    kind: S.kind < 0 ? "every" : D.kinds[S.kind], sample: sample < 0 ? "all" : D.texts[sample].id,
    caption: whole.caption, series, rows: whole.rows};
}
function picture(kind, w, height, words, give) { // what is on screen with its caption below
  const em = LOOK.em, lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && widthOf(longer) < w) lines[lines.length - 1] = longer; else lines.push(word);
  }
  const tall = height + lines.length * 1.3 * em, paper = css(LOOK.paper);
  const paint = pen => {
    DRAW[S.view](pen, w, blank(false), [0, Infinity]);
    lines.forEach((line, i) => pen.text(0, height + i * 1.3 * em, line, {fill: LOOK.soft}));
  };
  if (kind === "SVG") {
    const pen = new SvgPen(), size = `width="${f(w + 8)}" height="${f(tall + 8)}"`;
    paint(pen);
    const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 ${f(w + 8)} ${f(tall + 8)}" ${size}>`;
    give(new Blob([`${head}<title>${esc(words)}</title><rect x="-4" y="-4" ${size} fill="${paper}"/>`,
      pen.parts.join("\n"), "</svg>"], {type: "image/svg+xml"}));
  } else {
    const sheet = document.createElement("canvas"), factor = Math.min(2, 16000 / tall);
    sheet.width = (w + 8) * factor; sheet.height = (tall + 8) * factor;
    const context = sheet.getContext("2d"), pen = new CanvasPen(context);
    context.scale(factor, factor); context.translate(4, 4);
    pen.rect(-4, -4, w + 8, tall + 8, paper);
    paint(pen);
    sheet.toBlob(give, "image/png");
  }
}

const wrong = faults(), missed = Math.max(...D.series.flatMap(series => series.records.map(r => r.error)));
check.textContent = wrong.length ? `Do not read on: ${wrong.join("; ")}.` :
  `Checked: in every record each token's weights add up to 1 (largest miss ${missed.toExponential(0)})` +
    (D.series.some(series => series.mask === "exclude") ? ", excluded members have exactly 0." : ".");
check.classList.toggle("wrong", wrong.length > 0);
if (wrong.length) check.setAttribute("role", "alert");
refresh();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
