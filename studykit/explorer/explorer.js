"use strict";
// The fusion-weight explorer. Text of tokens and names reaches the page through textContent, fillText or esc() alone.
// Every view draws with a pen and lists its cells and rows: one pen paints the canvas, one writes SVG, rows are saved.
(async () => {
const D = JSON.parse(document.getElementById("data").textContent);
const COMPLETION = 1, STEPS = 255, MANY = 4000;
const VIEWS = {layers: "Layers", compare: "Compare", all: "All", depth: "Depth", tokens: "Tokens"};

// Data: float sums by pool and kind, then bytes of tokens

const bytesOf = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
const inflate = bytes => new Response(
  new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
const raw = await inflate(bytesOf(D.blob));
const FLOATS = new Float32Array(raw, 0, D.floats), BYTES = new Uint8Array(raw, 4 * D.floats);
const SEEDS = [...new Set(D.series.flatMap(series => series.records.map(r => r.seed)))];
const several = D.series.length > 1;

// What is chosen. a, b: places in D.series; sample and kind: -1 is all; cursor: id of a cell.
const S = {view: D.view, a: Math.max(0, D.series.length - 2), b: D.series.length - 1, seed: "mean", sample: -1,
  pool: D.tokens, kind: -1, quantity: "weight", scale: "full", by: "run", layer: 0, colour: "winner",
  show: several ? "b" : "a", token: -1, query: "", theme: "auto", cursor: null};

const focus = () => D.series[S.view === "layers" || S.show !== "a" ? S.b : S.a]; // what a view of one series shows
const partOf = (record, sample) => record.samples[sample]?.[S.quantity === "weight" ? 0 : 1] ?? -1; // its first byte
const heldIn = (series, sample) => series.records.some(r => partOf(r, sample) >= 0);
const held = () => D.texts.map((_, i) => i).filter(i => heldIn(focus(), i));
const kindsOn = () => S.kind < 0 ? D.kinds.map((_, k) => k) : [S.kind];
const chosen = series => series.records.filter(r => S.seed === "mean" || r.seed === S.seed);
const counted = (text, t) => D.pools[S.pool].includes(+text.marks[t]) && (S.kind < 0 || +text.kinds[t] === S.kind);
const takingPart = series => series.members.length - (series.mask === "exclude" ? series.masked.length : 0);
const alike = (one, two) => String(one.members) === String(two.members) && String(one.layers) === String(two.layers);

const known = new WeakMap(); // record -> means by what is chosen: a view asks for them at every drawing
function oneMean(series, record) { // {n, w: layers x members, e: bits per layer, record} of a record, or null
  if (!known.has(record)) known.set(record, new Map());
  const means = known.get(record), key = [S.sample, S.pool, S.kind, S.quantity].join();
  if (!means.has(key)) means.set(key, computed(series, record));
  return means.get(key);
}
function computed(series, record) {
  const L = series.layers.length, A = series.members.length, w = new Float64Array(L * A), e = new Float64Array(L);
  let n = 0;
  if (S.sample < 0) {
    for (const p of D.pools[S.pool]) for (const k of kindsOn()) {
      const at = p * D.kinds.length + k, from = record[S.quantity] + at * L * A;
      n += record.counts[p][k];
      for (let i = 0; i < L * A; i++) w[i] += FLOATS[from + i];
      for (let l = 0; l < L; l++) e[l] += FLOATS[record.entropy + at * L + l];
    }
  } else {
    const from = partOf(record, S.sample), weights = record.samples[S.sample]?.[0];
    if (from < 0) return null;
    const text = D.texts[S.sample], T = text.tokens.length;
    for (let t = 0; t < T; t++) if (counted(text, t)) {
      n += 1;
      for (let l = 0; l < L; l++) for (let m = 0; m < A; m++) {
        const at = (l * T + t) * A + m, weight = BYTES[weights + at] / STEPS;
        w[l * A + m] += BYTES[from + at] / STEPS;
        e[l] -= weight > 0 ? weight * Math.log2(weight) : 0;
      }
    }
  }
  return n ? {n, w: w.map(x => x / n), e: e.map(x => x / n), record} : null;
}

const middle = values => values.reduce((sum, v) => sum + v, 0) / values.length;
function spread(values) { // standard deviation (n - 1)
  const centre = middle(values), squares = values.reduce((sum, v) => sum + (v - centre) ** 2, 0);
  return values.length < 2 ? NaN : Math.sqrt(squares / (values.length - 1));
}
function over(each) { // the mean of several `oneMean`s, its sd, and what they stand on; null of none
  if (!each.length) return null;
  const all = (pick, of) => each[0][pick].map((_, i) => of(each.map(one => one[pick][i])));
  return {each, n: each[0].n, records: each.map(one => one.record),
    w: all("w", middle), e: all("e", middle), sd: all("w", spread), esd: all("e", spread)};
}
const mean = series => over(chosen(series).map(r => oneMean(series, r)).filter(Boolean));

function paired(one, two) { // means of both over the seeds that both have, where there are such, and the difference
  const both = [one, two].map(series => mean(series));
  if (both.includes(null)) return null;
  const common = both[0].records.map(r => r.seed).filter(seed => both[1].records.some(r => r.seed === seed));
  const [m, n] = !common.length ? both :
    both.map(of => over(common.map(seed => of.each.find(each => each.record.seed === seed))));
  const fewer = m.each.length < both[0].each.length || n.each.length < both[1].each.length;
  if (!alike(one, two)) return {m, n, fewer, change: null};
  const change = n.w.map((v, i) => v - m.w[i]);
  const sd = n.w.map((_, i) => common.length ? spread(n.each.map((each, k) => each.w[i] - m.each[k].w[i])) : NaN);
  return {m, n, fewer, change: {...n, w: change, sd}};
}

function faults() { // what does not hold of the weights, in sentences
  const said = [];
  for (const series of D.series) for (const record of series.records) {
    const wrong = fault(series, record), seed = record.seed === null ? "" : `, seed ${record.seed}`;
    if (wrong) said.push(`${series.label}${seed}: ${wrong}`);
  }
  return said;
}
function fault(series, record) { // the first that is found, or ""
  const L = series.layers.length, A = series.members.length, size = L * A;
  if (record.error > D.tolerance) return `a token's weights miss 1 by ${record.error.toPrecision(2)}`;
  const masked = series.masked.map(name => series.members.indexOf(name));
  for (const [p, kinds] of record.counts.entries()) for (const [k, n] of kinds.entries()) {
    const from = record.weight + (p * D.kinds.length + k) * size;
    for (let l = 0; l < L && n; l++) {
      const row = FLOATS.subarray(from + l * A, from + (l + 1) * A), sum = middle(row) * A / n;
      if (!(Math.abs(sum - 1) <= D.tolerance)) return `mean weights in ${series.layers[l]} add up to ${sum.toFixed(3)}`;
      if (series.mask === "exclude" && masked.some(m => row[m] !== 0))
        return `${series.masked.join(", ")} is excluded but has weight`;
    }
  }
  for (const [i, [from]] of Object.entries(record.samples)) {
    for (let at = from, end = from + D.texts[i].tokens.length * size; at < end; at += A) {
      let sum = 0;
      for (let m = 0; m < A; m++) sum += BYTES[at + m];
      if (sum !== STEPS) return `weights of a token add up to ${(sum / STEPS).toFixed(3)}`;
    }
  }
  return "";
}

// Colours

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const css = c => `rgb(${c.map(Math.round).join(",")})`;
const mix = (a, b, f) => a.map((x, i) => x + (b[i] - x) * f);
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
function along(stops, f) {
  const at = clamp(f || 0, 0, 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[i], stops[i + 1], at - i);
}
function inkOn(c) {
  const [r, g, b] = c.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}
let LOOK; // ink, paper and scales of the theme, read before each drawing
function look() {
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue("--" + name).trim();
  const dark = of("dark") === "1", paper = rgb(of("paper"));
  const sequential = D.colours.sequential.map(rgb), diverging = D.colours.diverging.map(rgb);
  // on dark paper the scales turn: nothing is dark, much is light
  const ends = [rgb("#ffb757"), rgb("#a9b8ff")], nothing = mix(paper, [255, 255, 255], 0.06);
  const turned = diverging.map((_, i) => {
    const f = 2 * i / (diverging.length - 1) - 1;
    return mix(nothing, ends[f > 0 ? 0 : 1], Math.abs(f));
  });
  const body = getComputedStyle(document.body);
  LOOK = {dark, paper, ink: of("ink"), soft: of("soft"), line: of("line"), accent: of("accent"),
    sequential: dark ? [...sequential].reverse() : sequential, diverging: dark ? turned : diverging,
    members: D.colours.members.map(hex => dark && hex === "#000000" ? "#ffffff" : hex),
    em: parseFloat(body.fontSize), sans: body.fontFamily, mono: of("mono")};
}
const DASH = [[], [7, 4], [8, 3, 2, 3], [2, 3], [10, 3], [6, 2, 2, 2, 2, 2], [2, 1], [14, 4]];
const hue = i => LOOK.members[i % LOOK.members.length];
function scaleOf(most, signed = false) {
  const colour = v => Number.isNaN(v) ? LOOK.paper :
    signed ? along(LOOK.diverging, 0.5 + v / most / 2) : along(LOOK.sequential, v / most);
  return {most, signed, colour};
}
const largest = values => values.reduce((most, v) => v > most ? v : most, 0.01);
const sharedScale = matrices => scaleOf(S.scale === "full" ? 1 : Math.max(...matrices.map(largest)));

// Pens

const f = x => +x.toFixed(2);
const unseen = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/gu; // what XML does not allow, and pairs of surrogates
const esc = text => String(text).replace(unseen, sign => sign.length > 1 ? sign : "\ufffd")
  .replace(/[&<>"']/g, sign => `&#${sign.charCodeAt(0)};`);
const ruler = document.createElement("canvas").getContext("2d");
const fontOf = o => `${o.bold ? "600 " : ""}${(o.size || 0.85) * LOOK.em}px ${o.mono ? LOOK.mono : LOOK.sans}`;
function widthOf(text, o = {}) { ruler.font = fontOf(o); return ruler.measureText(text).width; }
function fitted(text, width, o = {}) { // the text, or its beginning and an ellipsis
  if (widthOf(text, o) <= width) return text;
  let n = text.length;
  while (n > 1 && widthOf(text.slice(0, n) + "…", o) > width) n -= 1;
  return text.slice(0, n) + "…";
}

class CanvasPen {
  constructor(context) { this.c = context; }
  rect(x, y, w, h, fill, stroke, width = 1) {
    if (fill) { this.c.fillStyle = fill; this.c.fillRect(x, y, w, h); }
    if (stroke) { this.c.strokeStyle = stroke; this.c.lineWidth = width; this.c.strokeRect(x, y, w, h); }
  }
  text(x, y, text, o = {}) {
    Object.assign(this.c, {font: fontOf(o), fillStyle: o.fill || LOOK.ink, textBaseline: "middle",
      textAlign: o.align || "left"});
    if (!o.turn) return this.c.fillText(text, x, y);
    this.c.save(); this.c.translate(x, y); this.c.rotate(o.turn); this.c.fillText(text, 0, 0); this.c.restore();
  }
  path(points) {
    this.c.beginPath();
    points.forEach(([x, y], i) => i ? this.c.lineTo(x, y) : this.c.moveTo(x, y));
  }
  line(points, stroke, width = 1, dash = []) {
    this.path(points);
    this.c.strokeStyle = stroke; this.c.lineWidth = width;
    this.c.setLineDash(dash); this.c.stroke(); this.c.setLineDash([]);
  }
  area(points, fill) {
    this.path(points);
    this.c.globalAlpha = 0.16; this.c.fillStyle = fill; this.c.fill(); this.c.globalAlpha = 1;
  }
  dot(x, y, r, fill, stroke) {
    this.c.beginPath(); this.c.arc(x, y, r, 0, 7); this.c.fillStyle = fill; this.c.fill();
    if (stroke) { this.c.strokeStyle = stroke; this.c.lineWidth = 1.3; this.c.stroke(); }
  }
  image(x, y, w, h, bitmap) { this.c.imageSmoothingEnabled = false; this.c.drawImage(bitmap, x, y, w, h); }
}

const pointsOf = points => points.map(point => point.map(f).join(",")).join(" ");
class SvgPen {
  constructor() { this.parts = []; }
  rect(x, y, w, h, fill, stroke, width = 1) {
    this.parts.push(`<rect x="${f(x)}" y="${f(y)}" width="${f(w)}" height="${f(h)}" fill="${fill || "none"}"` +
      (stroke ? ` stroke="${stroke}" stroke-width="${width}"/>` : "/>"));
  }
  text(x, y, text, o = {}) {
    const anchor = {center: "middle", right: "end"}[o.align] || "start", size = (o.size || 0.85) * LOOK.em;
    this.parts.push(`<text x="${f(x)}" y="${f(y)}" dy=".35em" xml:space="preserve" text-anchor="${anchor}"` +
      ` font-size="${f(size)}" font-family="${esc(o.mono ? LOOK.mono : LOOK.sans)}" fill="${o.fill || LOOK.ink}"` +
      (o.bold ? ' font-weight="600"' : "") +
      (o.turn ? ` transform="rotate(${f(o.turn * 180 / Math.PI)} ${f(x)} ${f(y)})"` : "") + `>${esc(text)}</text>`);
  }
  line(points, stroke, width = 1, dash = []) {
    this.parts.push(`<polyline points="${pointsOf(points)}" fill="none" stroke="${stroke}"` +
      ` stroke-width="${width}"${dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : ""}/>`);
  }
  area(points, fill) {
    this.parts.push(`<polygon points="${pointsOf(points)}" fill="${fill}" fill-opacity="0.16"/>`);
  }
  dot(x, y, r, fill, stroke) {
    this.parts.push(`<circle cx="${f(x)}" cy="${f(y)}" r="${r}" fill="${fill}"` +
      (stroke ? ` stroke="${stroke}" stroke-width="1.3"/>` : "/>"));
  }
  image(x, y, w, h, bitmap) {
    this.parts.push(`<image x="${f(x)}" y="${f(y)}" width="${f(w)}" height="${f(h)}" preserveAspectRatio="none"` +
      ` style="image-rendering: pixelated" href="${bitmap.toDataURL()}"/>`);
  }
}
const SILENT = new Proxy({}, {get: () => () => {}});

// Words

function pct(v, digits = 1, sign = false) {
  return Number.isNaN(v) ? "–" : `${sign && v > 0 ? "+" : ""}${(100 * v).toFixed(digits)} %`;
}
const points = v => pct(v, 1, true).replace(" %", " points");
function inCell(v, signed) {
  if (Number.isNaN(v)) return "";
  if (Math.abs(v) < 0.005) return v > 0 && !signed ? "<1" : "0";
  return (signed && v > 0 ? "+" : "") + (100 * v).toFixed(0);
}
const VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"};
const visible = token =>
  [...token].map(sign => VISIBLE[sign] || (/\p{C}/u.test(sign) ? "\ufffd" : sign)).join("") || "∅";
const quantity = () => S.quantity === "weight" ? "fusion weight" : "norm-weighted share";
const number = n => n.toLocaleString("en");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const named = (series, m) => series.members[m] + (series.members[m] === series.target ? " (target)" : "");
const capital = text => text[0].toUpperCase() + text.slice(1);

function seedsSaid(series, m) {
  if (m.records.every(r => r.seed === null)) return "no seed";
  if (m.records.length === 1) return `seed ${m.records[0].seed}`;
  const all = series.records.length;
  return `mean of ${m.records.length}${m.records.length < all ? ` of ${all}` : ""} seeds`;
}
function standsParts(series, m) { // what the numbers of a series stand on: its tokens, then its runs
  const kind = S.kind < 0 ? "" : ` of kind ${D.kinds[S.kind]}`;
  const pool = S.pool === "both" ? "prompt and completion" : S.pool;
  const of = S.sample < 0 ? `n = ${plural(series.n, "sample")}` : `sample ${D.texts[S.sample].id}`;
  const runs = m.records.map(r => r.checkpoint || "unnamed"), base = m.records[0].base;
  const told = runs.length > 3 ? `${runs[0]} and ${runs.length - 1} more` : runs.join(", ");
  return [`${of}, ${number(m.n)} ${pool} tokens${kind}, padding excluded`,
    `${seedsSaid(series, m)}; checkpoint ${told}${base ? ` on base ${base}` : ""}` +
    (series.place === "output" ? "" : `; fused at ${series.place}`) +
    (series.masked.length ? `; ${series.masked.join(", ")} masked (${series.mask})` : "")];
}
function stands(shown) { // of several [series, mean]; what they share but once
  const parts = shown.map(([series, m]) => standsParts(series, m)), tokens = parts[0][0];
  const rounded = S.sample < 0 ? "" : " Of one sample, rounded weights are averaged: exact to ± 0.4 points.";
  if (shown.length === 1) return `${shown[0][0].label}: ${parts[0].join("; ")}.${rounded}`;
  const shared = parts.every(part => part[0] === tokens);
  return (shared ? `Each: ${tokens}. ` : "") +
    parts.map((part, i) => `${shown[i][0].label}: ${shared ? part[1] : part.join("; ")}.`).join(" ") + rounded;
}
function absent(series) { // why a series has no mean to show
  if (!chosen(series).length) return `seed ${S.seed} is not recorded`;
  if (S.sample >= 0 && !chosen(series).some(r => partOf(r, S.sample) >= 0)) {
    const shares = S.quantity === "share" && chosen(series).some(r => r.samples[S.sample]);
    return `sample ${D.texts[S.sample].id} is not kept token by token${shares ? " with its norm-weighted shares" : ""}`;
  }
  return "no token is of this kind";
}
function leftOut() { // the series that a view of all cannot show, and why
  const without = D.series.filter(series => !mean(series)).map(series => `${series.label} (${absent(series)})`);
  return without.length ? ` Not shown: ${without.join(", ")}.` : "";
}
function nothing(pen, out, why) {
  out.caption = `${capital(why)}.`;
  pen.text(0, LOOK.em, out.caption, {fill: LOOK.soft});
  return 3 * LOOK.em;
}

// Rows, as they are saved

const traced = (series, m) => ({target: series.target, sample: S.sample < 0 ? "all" : D.texts[S.sample].id,
  samples: S.sample < 0 ? series.n : 1, pool: S.pool, kind: S.kind < 0 ? "every" : D.kinds[S.kind], tokens: m.n,
  seeds: m.records.map(r => r.seed ?? "").join(" "), checkpoints: m.records.map(r => r.checkpoint).join(" ")});
const orNull = v => Number.isNaN(v) ? null : v;
function rowOf(series, m, l, c) {
  const at = l * series.members.length + c;
  return {series: series.label, layer: series.layers[l], member: series.members[c], [S.quantity]: m.w[at],
    sd_over_seeds: orNull(m.sd[at]), ...traced(series, m)};
}

// Parts of views: each draws at a place and returns its height

const HEADING = {size: 0.9, bold: true};
function titleLines(title, w) { // a title that is too long goes on below after its last dot
  const at = title.lastIndexOf(" · ");
  return at < 0 || widthOf(title, HEADING) < w - 3 * LOOK.em ? [title] : [title.slice(0, at), title.slice(at + 3)];
}
function heatmap(pen, out, x, y, w, o) {
  // o: id, title, heads (lines that titles of a row of panels take), columns, target (column), layers, marked (layer),
  // value(l, c), say(l, c), row(l, c), act(l, c), scale, room (height at most)
  const em = LOOK.em, L = o.layers.length, A = o.columns.length, small = {size: 0.8}, bold = {size: 0.8, bold: true};
  const marked = o.marked ?? -1, left = Math.max(...o.layers.map(name => widthOf(name, small))) + 0.7 * em;
  const tall = (L <= 6 ? 2.6 : L <= 12 ? 2 : L <= 24 ? 1.5 : L <= 50 ? 1.15 : 0.8) * em;
  const cw = Math.min(7.5 * em, (w - left) / A), ch = Math.max(3, Math.min(tall, (o.room || Infinity) / L));
  const labels = o.columns.map((name, c) => fitted(name, Math.min(9 * em, (x + left + (c + 0.7) * cw) / 0.71), bold));
  const widest = Math.max(...labels.map(name => widthOf(name, bold))), flat = widest < cw - 0.3 * em;
  const heads = titleLines(o.title, w), top = y + (0.5 + 1.2 * Math.max(heads.length, o.heads || 1)) * em;
  heads.forEach((line, i) => pen.text(x + left, y + (0.7 + 1.2 * i) * em, fitted(line, w - left, HEADING), HEADING));
  for (let r = 0; r < L; r++) {
    const l = L - 1 - r, cy = top + r * ch; // the first layer is at the bottom
    if (l % Math.ceil(0.9 * em / ch) === 0) pen.text(x + left - 0.4 * em, cy + ch / 2, o.layers[l],
      {align: "right", size: clamp(0.8 * ch / em, 0.7, 0.8), fill: LOOK.soft, bold: l === marked});
    for (let c = 0; c < A; c++) {
      const v = o.value(l, c), colour = o.scale.colour(v), cx = x + left + c * cw;
      pen.rect(cx, cy, cw - 1, ch - 1, css(colour));
      if (cw > 2 * em && ch > em) pen.text(cx + cw / 2, cy + ch / 2, inCell(v, o.scale.signed),
        {align: "center", size: Math.min(0.82, 0.62 * ch / em), fill: inkOn(colour)});
      out.cells.push({id: `${o.id}/${l}/${c}`, x: cx, y: cy, w: cw - 1, h: ch - 1, say: o.say(l, c),
        act: o.act && (() => o.act(l, c))});
      if (o.row) out.rows.push(o.row(l, c));
    }
  }
  if (o.target >= 0) pen.rect(x + left + o.target * cw - 0.5, top - 1, cw, L * ch + 1, null, LOOK.ink, 2);
  if (marked >= 0) pen.rect(x + left - 1, top + (L - 1 - marked) * ch - 1, A * cw + 1, ch + 1, null, LOOK.accent, 2);
  const below = top + L * ch + 0.3 * em;
  labels.forEach((name, c) => {
    const style = {size: 0.8, bold: c === o.target}, cx = x + left + (c + 0.5) * cw;
    if (flat) pen.text(cx, below + 0.6 * em, name, {...style, align: "center"});
    else pen.text(cx + 0.2 * em, below + 0.3 * em, name, {...style, align: "right", turn: -Math.PI / 4});
  });
  return below + (flat ? 1.5 * em : widest * 0.71 + 0.9 * em) - y;
}

function legend(pen, x, y, w, scale, label) {
  const em = LOOK.em, steps = 48, long = Math.min(14 * em, w * 0.5), low = scale.signed ? -scale.most : 0;
  const soft = {size: 0.8, fill: LOOK.soft}, ends = [low, scale.most].map(v =>
    pct(v, scale.most < 0.1 ? 1 : 0, scale.signed).replace(" %", scale.signed ? "" : " %"));
  const start = x + widthOf(ends[0], soft) + 0.4 * em, behind = start + long + 0.4 * em;
  pen.text(x, y + 0.6 * em, ends[0], soft);
  for (let i = 0; i < steps; i++) pen.rect(start + i * long / steps, y + 0.15 * em, long / steps + 0.5, 0.9 * em,
    css(scale.colour(low + (scale.most - low) * i / (steps - 1))));
  pen.text(behind, y + 0.6 * em, fitted(`${ends[1]}  ${label}`, x + w - behind, soft), soft);
  return 2 * em;
}

function keys(pen, x, y, w, entries) { // words, each behind its sample of colour or line, wrapped
  const em = LOOK.em, start = x, from = y;
  for (const [label, mark, space = 0, bold = false] of entries) {
    const words = fitted(label, w - space - em, {bold}), wide = widthOf(words, {bold}) + space + 1.2 * em;
    if (x > start && x + wide > start + w) { x = start; y += 1.5 * em; }
    mark?.(x, y + 0.6 * em);
    pen.text(x + space, y + 0.6 * em, words, {bold});
    x += wide;
  }
  return y - from + 2 * em;
}

const drill = series => (l, m) => { // to the tokens of a cell
  const n = D.series.indexOf(series);
  if (n !== S.b) S.a = n;
  Object.assign(S, {layer: l, colour: String(m), show: n === S.b ? "b" : "a", view: "tokens", cursor: null});
  refresh();
};

function panelOf(series, m, scale) { // the heatmap of a series
  const A = series.members.length, at = (l, c) => l * A + c, seeds = ` (sd over ${m.each.length} seeds)`;
  const sd = (l, c) => Number.isNaN(m.sd[at(l, c)]) ? "" : ` ± ${pct(m.sd[at(l, c)])}${seeds}`;
  return {id: D.series.indexOf(series), title: series.label, columns: series.members, layers: series.layers, scale,
    target: series.members.indexOf(series.target), value: (l, c) => m.w[at(l, c)],
    act: D.texts.some((_, i) => heldIn(series, i)) ? drill(series) : null, row: (l, c) => rowOf(series, m, l, c),
    say: (l, c) =>
      `${series.label} · ${series.layers[l]} · ${named(series, c)}: ${pct(m.w[at(l, c)])}${sd(l, c)}`};
}
function differenceOf(one, two, m, change, scale) { // the heatmap of two less one
  const panel = panelOf(two, change, scale), A = two.members.length, label = `${two.label} − ${one.label}`;
  const sd = at => Number.isNaN(change.sd[at]) ? "" :
    ` ± ${points(change.sd[at]).slice(1)} (sd of ${change.each.length} paired seeds)`;
  return {...panel, title: "difference, points", act: null,
    row: (l, c) => {
      const {[S.quantity]: value, ...row} = rowOf(two, change, l, c);
      return {...row, series: label, [`${S.quantity}_difference`]: value,
        checkpoints: `${row.checkpoints} less ${traced(one, m).checkpoints}`};
    },
    say: (l, c) =>
      `${label} · ${two.layers[l]} · ${named(two, c)}: ${points(change.w[l * A + c])}${sd(l * A + c)}`};
}

// Views: (pen, width, out, clip) -> height

const DRAW = {
  layers(pen, w, out) {
    const series = focus(), m = mean(series);
    if (!m) return nothing(pen, out, absent(series));
    const scale = sharedScale([m.w]), y = legend(pen, 0, 0, w, scale, quantity());
    out.caption = `Mean ${quantity()} per layer and member, in percent; the frame marks the target, ` +
      `${series.target}. ${stands([[series, m]])}` +
      (held().length ? " Click a cell, or press Enter, to see its tokens." : "");
    return y + heatmap(pen, out, 0, y, w, panelOf(series, m, scale));
  },

  compare(pen, w, out) {
    const one = D.series[S.a], two = D.series[S.b], pair = paired(one, two);
    if (!pair) return nothing(pen, out, [one, two].filter(series => !mean(series)).map(series =>
      `${series.label}: ${absent(series)}`).join("; "));
    const {m, n, change, fewer} = pair, em = LOOK.em, wide = w > 44 * em, count = change ? 3 : 2, gap = 1.2 * em;
    const pw = wide ? (w - gap * (count - 1)) / count : w, scale = sharedScale([m.w, n.w]);
    const panels = [panelOf(one, m, scale), panelOf(two, n, scale)];
    const most = change && largest(change.w.map(Math.abs));
    if (change) panels.push(differenceOf(one, two, m, change, scaleOf(most, true)));
    const heads = wide ? Math.max(...panels.map(panel => titleLines(panel.title, pw).length)) : 1;
    let y = legend(pen, 0, 0, w, scale, quantity()), lowest = y;
    if (change && wide) legend(pen, 2 * (pw + gap), 0, pw, panels[2].scale, "points");
    const start = y;
    panels.forEach((panel, i) => {
      if (!wide && i === 2) y += legend(pen, 0, y, w, panel.scale, "difference, points");
      const placed = {...panel, heads, id: "ab-"[i]};
      const height = heatmap(pen, out, wide ? i * (pw + gap) : 0, wide ? start : y, pw, placed);
      if (wide) lowest = Math.max(lowest, start + height); else y = lowest = y + height + gap;
    });
    out.caption = `Mean ${quantity()} in percent` +
      (change ? `, and the difference, ${two.label} less ${one.label}. ` :
        "; members or layers differ, so there is no difference. ") +
      (S.sample >= 0 ? "" : one.same === two.same ? "The same samples in both. " : "The samples are NOT the same. ") +
      (fewer ? "Only the seeds that both have. " : "") + stands([[one, m], [two, n]]);
    return lowest;
  },

  all(pen, w, out) {
    const shown = D.series.map(series => [series, mean(series)]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return nothing(pen, out, absent(D.series[0]));
    const scale = sharedScale(shown.map(([, m]) => m.w)), gap = 1.2 * em;
    const panels = S.by === "run" ? shown.map(([series, m]) => panelOf(series, m, scale)) : byMember(shown, scale);
    const widest = Math.max(...panels.map(p => p.columns.length)), need = (3 + 2.5 * widest) * em;
    const across = clamp(Math.floor((w + gap) / (need + gap)), 1, panels.length);
    const pw = (w - gap * (across - 1)) / across;
    const heads = Math.max(...panels.map(panel => titleLines(panel.title, pw).length));
    let y = legend(pen, 0, 0, w, scale, `${quantity()}, one scale`), tallest = 0;
    if (S.by === "member") y += keys(pen, 0, y, w, shown.map(([series], c) => [`${c + 1} ${series.label}`]));
    panels.forEach((panel, i) => {
      if (i && i % across === 0) { y += tallest + gap; tallest = 0; }
      tallest = Math.max(tallest, heatmap(pen, out, (i % across) * (pw + gap), y, pw, {...panel, heads}));
    });
    out.caption = `Mean ${quantity()} per layer in percent, every panel on one scale` +
      (S.by === "run" ? "; frames mark each one's target. " : ". ") + stands(shown) + leftOut();
    return y + tallest;
  },

  depth(pen, w, out) {
    const shown = D.series.map((series, i) => [series, mean(series), i]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return nothing(pen, out, absent(D.series[0]));
    const y = 0.6 * em + keys(pen, 0, 0, w, shown.map(([series, , i]) => [series.label, (x, y) => {
      pen.line([[x, y], [x + 2.4 * em, y]], hue(i), 2.4, DASH[i % DASH.length]);
      pen.dot(x + 1.2 * em, y, 4, hue(i));
    }, 2.8 * em]));
    const own = (series, l) => l * series.members.length + series.members.indexOf(series.target);
    const share = {title: `${quantity()} on the target's own adapter (%)`, quantity: `target_${S.quantity}`,
      uniform: A => 1 / A, tick: v => String(+(100 * v).toFixed(1)), unit: " %", say: v => pct(v),
      of: (series, m, l) => [m.w[own(series, l)], m.sd[own(series, l)], m.each.map(e => e.w[own(series, l)])]};
    const entropy = {title: "entropy of a token's weights (bits)", quantity: "entropy_bits",
      uniform: A => Math.log2(A), tick: v => String(+v.toFixed(2)), unit: "",
      say: (v, series) => `${v.toFixed(2)} bits, ${pct(v / Math.log2(Math.max(2, takingPart(series))), 0)} of uniform`,
      of: (series, m, l) => [m.e[l], m.esd[l], m.each.map(e => e.e[l])]};
    const wide = w > 50 * em, cw = wide ? (w - 2 * em) / 2 : w, tall = 17 * em;
    [share, entropy].forEach((chart, i) => lines(pen, out, wide ? i * (cw + 2 * em) : 0,
      wide ? y : y + i * (tall + 4.2 * em), cw, tall, chart, shown));
    out.caption = "Lines are means over seeds, bands ± 1 sd, open points single seeds; dotted: uniform over the " +
      `members that take part. Entropy is always of the weights. ${stands(shown)}${leftOut()}`;
    return y + (wide ? tall : 2 * tall + 4.2 * em) + 3.2 * em;
  },

  tokens(pen, w, out, clip) {
    const here = tokensOf();
    if (here.why) return nothing(pen, out, here.why);
    const {series, text, T, L, A, of, label, signed} = here, em = LOOK.em;
    const member = S.colour === "winner" || +S.colour >= A ? -1 : +S.colour;
    const column = member < 0 && signed ? series.members.indexOf(series.target) : member;
    const scale = signed || S.scale !== "full" ? scaleOf(here.most(Math.max(column, 0)), signed) : scaleOf(1);
    const colour = column >= 0 ? (l, t) => scale.colour(of(l, t, column)) : (l, t) => {
      const best = here.winner(l, t), strength = A < 2 ? 1 : clamp((of(l, t, best) - 1 / A) / (1 - 1 / A), 0, 1);
      return mix(LOOK.paper, rgb(hue(best)), 0.2 + 0.75 * strength);
    };
    const layer = clamp(S.layer, 0, L - 1), detail = S.token >= 0 && S.token < T, beside = w > 46 * em;
    const dw = beside ? Math.min(20 * em, w * 0.34) : w, sw = detail && beside ? w - dw - 1.5 * em : w;
    const look = {...here, colour, column, layer};
    const meaning = signed ? `${label}, points of` : `${quantity()} of`;
    let y = column >= 0 ? legend(pen, 0, 0, sw, scale, `${meaning} ${series.members[column]}`) :
      keys(pen, 0, 0, sw, series.members.map((name, m) => [`${m + 1} ${named(series, m)}`,
        (x, y) => pen.rect(x, y - 0.5 * em, 1.1 * em, em, css(mix(LOOK.paper, rgb(hue(m)), 0.95))), 1.5 * em,
        name === series.target]));
    y += overview(pen, out, y, sw, look) + em;
    pen.text(0, y + 0.4 * em, fitted(`${series.layers[layer]}, ${label}`, sw, {bold: true}), {bold: true});
    y += 1.5 * em;
    if (detail && !beside) y += tokenPanel(pen, out, 0, y, dw, look) + em;
    const start = y;
    y += strip(pen, out, y, sw, look, clip);
    if (detail && beside) { // stays in sight when the text scrolls, and fits into it
      const at = clamp(clip[0], 0, Math.max(0, y - 10 * em)), room = Math.max(clip[1] - clip[0] - 8 * em, 8 * em);
      y = Math.max(y, at + tokenPanel(pen, out, w - dw, at, dw, look, room));
    }
    if (out.full) tokenRows(out, look, detail);
    out.caption = `Sample ${text.id}, ${plural(T, "token")}, ${label}: ` +
      (column < 0 ? "each token has the colour and number of the member that wins it, fainter towards uniform" :
        `each token is coloured by the ${signed ? "change of the " : ""}${quantity()} of ${series.members[column]}`) +
      ". Underlined tokens predict the completion; outlined ones are not counted by the filters. " +
      `Single tokens are exact to ± ${signed ? 0.8 : 0.4} points. Checkpoint ${here.checkpoint}, padding excluded. ` +
      foundSaid(here.sample) + `${held().length} of ${series.n} samples can be read token by token. ` +
      "Click a token to see all of its layers.";
    return Math.max(y, start);
  },
};

function byMember(shown, scale) { // a panel per member, a column per series that has it
  const names = [...new Set(shown.flatMap(([series]) => series.members))];
  const layers = shown.reduce((most, [series]) => series.layers.length > most.length ? series.layers : most, []);
  const has = (series, name, l) => series.members.includes(name) && l < series.layers.length;
  return names.map((name, i) => {
    const value = (l, c) => { const [series, m] = shown[c];
      return has(series, name, l) ? m.w[l * series.members.length + series.members.indexOf(name)] : NaN; };
    const row = (l, c) => { const [series, m] = shown[c];
      return has(series, name, l) ? rowOf(series, m, l, series.members.indexOf(name)) :
        {series: series.label, layer: layers[l], member: name, [S.quantity]: null}; };
    return {id: `member ${i}`, title: name, columns: shown.map((_, c) => String(c + 1)), target: -1, layers, scale,
      value, row, say: (l, c) => `${name} · ${shown[c][0].label} · ${layers[l]}: ${pct(value(l, c))}`};
  });
}

function lines(pen, out, x, y, w, tall, chart, shown) { // a quantity by depth
  const em = LOOK.em, left = x + 3 * em, right = x + w - em, bottom = y + tall, small = {size: 0.8, fill: LOOK.soft};
  const curves = shown.map(([series, m, i]) => [series, series.layers.map((_, l) => chart.of(series, m, l)), i, m]);
  const sizes = [...new Set(shown.map(([series]) => takingPart(series)))].filter(A => A > 1);
  const highest = curves.flatMap(([, values]) => values.flatMap(([v, sd, each]) => [v + (sd || 0), ...each]));
  const top = 1.08 * Math.max(0.01, ...sizes.map(chart.uniform), ...highest);
  const depth = Math.max(...curves.map(([, values]) => values.length));
  const px = l => left + (depth < 2 ? 0.5 : (l + 0.5) / depth) * (right - left);
  const py = v => bottom - v / top * (tall - 2 * em);
  pen.text(x, y + 0.5 * em, fitted(chart.title, w, {bold: true, size: 0.9}), {bold: true, size: 0.9});
  for (let i = 0, step = countable(top / 4); i * step <= top; i++) {
    const v = i * step;
    pen.line([[left, py(v)], [right, py(v)]], LOOK.line);
    pen.text(left - 0.4 * em, py(v), chart.tick(v), {...small, align: "right"});
  }
  for (const A of sizes) {
    const level = py(chart.uniform(A));
    pen.line([[left, level], [right, level]], LOOK.soft, 1.2, [2, 3]);
    pen.text(right, level - 0.6 * em, sizes.length > 1 ? `uniform of ${A}` : "uniform",
      {align: "right", size: 0.75, fill: LOOK.soft});
  }
  const step = Math.ceil(depth / Math.max(1, Math.floor((right - left) / (3 * em))));
  const longest = curves.find(([, values]) => values.length === depth)[0];
  for (let l = 0; l < depth; l += step) pen.text(px(l), bottom + 0.8 * em, longest.layers[l],
    {...small, align: "center"});
  pen.text((left + right) / 2, bottom + 2.2 * em, "layer", {...small, align: "center"});
  for (const [series, values, i, m] of curves) {
    const edge = sign => values.map(([v, sd], l) => [px(l), py(v + sign * sd)]);
    if (values.some(([, sd]) => sd > 0)) pen.area([...edge(1), ...edge(-1).reverse()], hue(i));
    pen.line(values.map(([v], l) => [px(l), py(v)]), hue(i), 2, DASH[i % DASH.length]);
    values.forEach(([v, sd, each], l) => {
      if (each.length > 1) for (const one of each) pen.dot(px(l), py(one), 2.2, css(LOOK.paper), hue(i));
      pen.dot(px(l), py(v), 4, hue(i));
      const of = each.length > 1 ?
        ` (${each.length} seeds: ${each.map(one => chart.tick(one) + chart.unit).join(", ")})` : "";
      const id = (i, l) => `${chart.quantity}/${i}/${l}`;
      out.cells.push({id: id(i, l), x: px(l) - 6, y: py(v) - 6, w: 12, h: 12, // along a curve, and across them
        to: {ArrowLeft: id(i, l - 1), ArrowRight: id(i, l + 1), ArrowUp: id(i - 1, l), ArrowDown: id(i + 1, l)},
        say: `${series.label} · ${series.layers[l]}: ${chart.say(v, series)}${of}`});
      out.rows.push({series: series.label, layer: series.layers[l], quantity: chart.quantity, value: v,
        sd_over_seeds: orNull(sd), ...traced(series, m)});
    });
  }
}
function countable(v) { // a step near v that people count in
  const power = 10 ** Math.floor(Math.log10(v));
  return power * [1, 2, 2.5, 5, 10].find(step => step * power >= 0.8 * v);
}

// Tokens: `here` is what tokensOf gives; views add colour(l, t), column and layer

function tokensOf() { // the weights of the tokens that are shown, as a function of layer, token and member, or {why}
  const shown = S.show === "b" || S.show === "diff" ? D.series[S.b] : D.series[S.a], signed = S.show === "diff";
  const pair = signed ? [D.series[S.a], shown] : [shown];
  const both = i => pair.every(series => chosen(series).some(r => partOf(r, i) >= 0));
  const sample = S.sample >= 0 ? S.sample : held().find(both) ?? held()[0];
  if (sample === undefined) return {why: `no sample of ${shown.label} is kept token by token` +
    (S.quantity === "share" ? " with its norm-weighted shares" : "")};
  const text = D.texts[sample], T = text.tokens.length;
  const those = series => chosen(series).filter(r => partOf(r, sample) >= 0);
  const inBoth = record => pair.every(series => those(series).some(r => r.seed === record.seed));
  const read = series => { // of the first seed that all have, if there is one
    const record = those(series).find(inBoth) || those(series)[0], A = series.members.length;
    if (!record) return null;
    const from = partOf(record, sample), seed = record.seed === null ? "" : `, seed ${record.seed}`;
    return {record, name: series.label + seed, value: (l, t, m) => BYTES[from + (l * T + t) * A + m] / STEPS};
  };
  const one = signed ? read(pair[0]) : null, two = read(shown);
  const without = series => ({why: `sample ${text.id} is not kept token by token for ${series.label}` +
    (S.seed === "mean" ? "" : `, seed ${S.seed}`) +
    (S.quantity === "share" ? ", or not with its norm-weighted shares" : "")});
  if (!two) return without(shown);
  if (signed && !one) return without(D.series[S.a]);
  if (signed && !alike(D.series[S.a], shown)) return {why: "A and B differ in members or layers: no difference"};
  const L = shown.layers.length, A = shown.members.length;
  const of = signed ? (l, t, m) => two.value(l, t, m) - one.value(l, t, m) : two.value;
  const winner = (l, t) => {
    let best = 0;
    for (let m = 1; m < A; m++) if (of(l, t, m) > of(l, t, best)) best = m;
    return best;
  };
  const most = m => {
    let top = 0.01;
    for (let l = 0; l < L; l++) for (let t = 0; t < T; t++) top = Math.max(top, Math.abs(of(l, t, m)));
    return top;
  };
  return {series: shown, sample, text, T, L, A, of, winner, most, signed,
    label: signed ? `${two.name} − ${one.name}` : two.name,
    checkpoint: [two, one].filter(Boolean).map(each => each.record.checkpoint || "unnamed").join(" less ")};
}
const partSaid = (text, t) => ["prompt", "completion", "last"][text.marks[t]];
const tokenSaid = (text, t) => `token ${t + 1} “${visible(text.tokens[t])}”`;
const go = (l, t) => () => { S.layer = l; S.token = t; refresh(true); };

function overview(pen, out, y, w, {series, text, T, L, colour, layer}) { // all layers, a pixel per token and layer
  const em = LOOK.em, left = Math.max(...series.layers.map(name => widthOf(name, {size: 0.75}))) + 0.5 * em;
  const bh = clamp(9 * em / L, 2, 1.1 * em), mw = Math.min(w - left, T * 1.2 * em), px = mw / T;
  pen.image(left, y, mw, L * bh, pen === SILENT ? null : painted(T, L, colour));
  for (let l = 0; l < L; l += Math.ceil(em / bh)) pen.text(left - 0.3 * em, y + (L - 0.5 - l) * bh, series.layers[l],
    {align: "right", size: 0.75, fill: LOOK.soft});
  pen.rect(left - 1, y + (L - 1 - layer) * bh - 1, mw + 2, bh + 2, null, LOOK.ink, 1.5);
  if (S.token >= 0 && S.token < T) pen.rect(left + S.token * px - 1, y - 1, px + 2, L * bh + 2, null, LOOK.accent, 1.5);
  const cell = (l, t) => ({id: `o${l}/${t}`, say: `${series.layers[l]} · ${tokenSaid(text, t)}`, act: go(l, t)});
  if (L * T <= MANY) for (let l = L - 1; l >= 0; l--) for (let t = 0; t < T; t++)
    out.cells.push({...cell(l, t), x: left + t * px, y: y + (L - 1 - l) * bh, w: px, h: bh});
  else out.areas.push({x: left, y, w: mw, h: L * bh, at: (dx, dy) =>
    cell(clamp(L - 1 - Math.floor(dy / bh), 0, L - 1), clamp(Math.floor(dx / px), 0, T - 1))});
  return L * bh;
}
let kept = {}; // the picture of all layers stays while only the layer or the token changes
function painted(T, L, colour) {
  const {a, b, sample, seed, show, quantity, scale, colour: by} = S;
  const key = JSON.stringify([a, b, sample, seed, show, quantity, scale, by, LOOK.dark]);
  if (kept.key === key) return kept.bitmap;
  const bitmap = document.createElement("canvas");
  bitmap.width = T; bitmap.height = L;
  const context = bitmap.getContext("2d"), pixels = context.createImageData(T, L);
  for (let l = 0; l < L; l++) for (let t = 0; t < T; t++)
    pixels.data.set([...colour(l, t).map(Math.round), 255], 4 * ((L - 1 - l) * T + t));
  context.putImageData(pixels, 0, 0);
  kept = {key, bitmap};
  return bitmap;
}

function strip(pen, out, y, w, {series, sample, text, of, A, winner, signed, colour, column, layer}, clip) {
  const em = LOOK.em, style = {mono: true, size: 0.86}, winners = column < 0, tall = (winners ? 2.05 : 1.6) * em;
  const found = matches(sample), from = y;
  const all = t => Array.from({length: A}, (_, m) => `${series.members[m]} ${pct(of(layer, t, m), 1, signed)}`);
  const say = t => `${tokenSaid(text, t)} (${partSaid(text, t)}, ${D.kinds[text.kinds[t]]}) · ` +
    `${series.layers[layer]}: ${all(t).join(", ")}`;
  let x = 0;
  text.tokens.forEach((token, t) => {
    const said = fitted(visible(token), w - em, style), wide = cachedWidth(said, style) + 0.34 * em;
    if (x && x + wide > w) { x = 0; y += tall; }
    if (y + tall >= clip[0] && y <= clip[1]) {
      const on = counted(text, t), fill = colour(layer, t), ink = on ? inkOn(fill) : LOOK.soft;
      const cx = x + wide / 2 - 0.75;
      const frame = (colour, by) => pen.rect(x - 0.5, y - 0.5, wide - 0.5, tall - 2, null, colour, by);
      pen.rect(x, y, wide - 1.5, tall - 3, on ? css(fill) : null, on ? null : LOOK.line);
      pen.text(cx, y + (winners ? 0.36 : 0.46) * tall, said, {...style, align: "center", fill: ink});
      if (winners && on) pen.text(cx, y + 0.75 * tall, String(winner(layer, t) + 1),
        {size: 0.6, align: "center", fill: ink});
      if (+text.marks[t] === COMPLETION)
        pen.line([[x + 1, y + tall - 2], [x + wide - 2.5, y + tall - 2]], LOOK.ink, 1.4);
      if (found.has(t)) frame(LOOK.accent, 2.5);
      if (t === S.token) frame(LOOK.ink, 2.5);
    }
    out.cells.push({id: `t${t}`, x, y, w: wide - 1.5, h: tall - 3, get say() { return say(t); }, act: go(layer, t)});
    x += wide;
  });
  return y + tall - from;
}
const widths = new Map();
function cachedWidth(text, style) {
  const key = LOOK.em + text;
  if (!widths.has(key)) widths.set(key, widthOf(text, style));
  return widths.get(key);
}

function tokenPanel(pen, out, x, y, w, {series, text, of, label, signed, layer}, room) { // one token in all layers
  const A = series.members.length, at = (l, m) => of(l, S.token, m);
  const values = series.layers.flatMap((_, l) => series.members.map((_, m) => at(l, m)));
  const scale = scaleOf(signed ? largest(values.map(Math.abs)) : 1, signed);
  return heatmap(pen, out, x, y, w, {id: "token", title: tokenSaid(text, S.token), columns: series.members, scale, room,
    target: series.members.indexOf(series.target), layers: series.layers, marked: layer,
    value: (l, m) => values[l * A + m], act: l => { S.layer = l; refresh(true); },
    say: (l, m) => `${label} · token ${S.token + 1} · ${series.layers[l]} · ${series.members[m]}: ` +
      pct(at(l, m), 1, signed)});
}
function tokenRows(out, {series, text, T, L, of, label, checkpoint, signed, layer}, detail) {
  const name = signed ? `${S.quantity}_difference` : S.quantity;
  const add = (l, t) => series.members.forEach((member, m) => out.rows.push({series: label, sample: text.id,
    layer: series.layers[l], position: t + 1, token: text.tokens[t], part: partSaid(text, t),
    kind: D.kinds[text.kinds[t]], counted: counted(text, t), member, [name]: +of(l, t, m).toFixed(5), checkpoint}));
  for (let t = 0; t < T; t++) add(layer, t);
  if (detail) for (let l = 0; l < L; l++) if (l !== layer) add(l, S.token); // the panel of one token
}

let searched = {}; // hits by sample, of one query
function matches(sample) { // the tokens of a sample that hold the query or a part of it
  if (searched.query !== S.query) searched = {query: S.query, hits: new Map()};
  if (!S.query) return new Set();
  if (!searched.hits.has(sample)) {
    const {tokens} = D.texts[sample], found = new Set();
    const wanted = new RegExp(S.query.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "giu");
    let t = 0, end = tokens[0]?.length ?? 0;
    for (const hit of tokens.join("").matchAll(wanted)) {
      while (end <= hit.index) end += tokens[++t].length;
      found.add(t);
      while (end < hit.index + hit[0].length) { end += tokens[++t].length; found.add(t); }
    }
    searched.hits.set(sample, found);
  }
  return searched.hits.get(sample);
}
function foundSaid(sample) {
  if (!S.query) return "";
  const others = held().filter(i => i !== sample && matches(i).size).map(i => i + 1);
  return `${plural(matches(sample).size, "token")} match the search` +
    (others.length ? `; so do some in sample${others.length > 1 ? "s" : ""} ${others.join(", ")}. ` : ". ");
}

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
  const series = of.map(({label, method, phase, place, target, mask, masked, n, records}) =>
    ({label, method, phase, place, target, mask, masked, samples: n, records: runs(records)}));
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
})().catch(error => {
  document.getElementById("explorer").append(`This page could not start (${error.message}); a browser of 2023 can.`);
  throw error;
});
