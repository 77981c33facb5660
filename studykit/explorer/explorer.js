"use strict";
// The fusion-weight explorer. Text of tokens and names reaches the page through textContent, fillText or esc() alone.
// Every view draws with a pen and lists its cells and rows: one pen paints the canvas, one writes SVG, rows are saved.
(async () => {
const D = JSON.parse(document.getElementById("data").textContent);
const PROMPT = 0, COMPLETION = 1, STEPS = 255, MANY = 4000;
const VIEWS = {layers: "Layers", compare: "Compare", all: "All", depth: "Depth", tokens: "Tokens"};
const KIND = "every kind";

// Data: float sums by pool and kind, then bytes of tokens

const bytesOf = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
const inflate = bytes => new Response(new Blob([bytes]).stream()
  .pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
const raw = await inflate(bytesOf(D.blob));
const FLOATS = new Float32Array(raw, 0, D.floats), BYTES = new Uint8Array(raw, 4 * D.floats);
const SEEDS = [...new Set(D.series.flatMap(s => s.records.map(r => r.seed)))];
const several = D.series.length > 1;

const S = {view: D.view, a: 0, b: several ? 1 : 0, seed: "mean", sample: -1, pool: D.tokens, kind: -1,
  quantity: "weight", scale: "full", by: "run", layer: 0, colour: "winner", show: several ? "b" : "a", token: -1,
    query: "",
  theme: "auto", cursor: -1};
if (several) S.a = Math.max(0, D.series.length - 2), S.b = D.series.length - 1;
const focus = () => D.series[S.view === "layers" || S.show !== "a" ? S.b : S.a]; // the series that a view of one shows
const heldIn = (series, sample) => series.records.findIndex(r => r.samples[sample]);

const kindsOn = () => S.kind < 0 ? D.kinds.map((_, k) => k) : [S.kind];
const chosen = series => S.seed === "mean" ? series.records : series.records.filter(r => r.seed === S.seed);
const counted = (text, t) => D.pools[S.pool].includes(+text.marks[t]) && (S.kind < 0 || +text.kinds[t] === S.kind);

function oneMean(series, record) { // {n, w: layers x members, e: bits per layer} of a record, or null
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
    if (!record.samples[S.sample]) return null;
    const text = D.texts[S.sample], T = text.tokens.length, from = record.samples[S.sample];
    for (let t = 0; t < T; t++) if (counted(text, t)) {
      n += 1;
      for (let l = 0; l < L; l++) for (let m = 0; m < A; m++) {
        const at = (l * T + t) * A + m, weight = BYTES[from[0] + at] / STEPS;
        w[l * A + m] += S.quantity === "weight" ? weight : BYTES[from[1] + at] / STEPS;
        e[l] -= weight > 0 ? weight * Math.log2(weight) : 0;
      }
    }
  }
  return n ? {n, w: w.map(x => x / n), e: e.map(x => x / n)} : null;
}

function mean(series) { // the mean over the chosen seeds, its sd (n - 1), and what it stands on
  const each = chosen(series).map(r => oneMean(series, r)).filter(Boolean);
  if (!each.length) return null;
  const over = pick => each[0][pick].map((_, i) => each.reduce((sum, one) => sum + one[pick][i], 0) / each.length);
  const w = over("w"), e = over("e");
  const spread = (pick, centre) => centre.map((c, i) => each.length < 2 ? NaN :
    Math.sqrt(each.reduce((sum, one) => sum + (one[pick][i] - c) ** 2, 0) / (each.length - 1)));
  return {w, e, sd: spread("w", w), esd: spread("e", e), each, n: each[0].n};
}

function faults() { // what does not hold of the weights, in sentences
  const said = [];
  for (const s of D.series) for (const r of s.records) {
    const L = s.layers.length, A = s.members.length, size = L * A, name = s.label +
      (r.seed === null ? "" : ", seed " + r.seed);
    let wrong = r.error > D.tolerance ? `a token's weights miss 1 by ${r.error.toPrecision(2)}` : "", held = 0;
    r.counts.forEach((kinds, p) => kinds.forEach((n, k) => {
      const from = r.weight + (p * D.kinds.length + k) * size;
      for (let l = 0; l < L && n; l++) {
        let sum = 0;
        for (let m = 0; m < A; m++) sum += FLOATS[from + l * A + m];
        if (!(Math.abs(sum / n - 1) <= D.tolerance)) wrong = wrong ||
          `mean weights in ${s.layers[l]} add up to ${(sum / n).toFixed(3)}`;
        for (const name of s.masked) held += FLOATS[from + l * A + s.members.indexOf(name)];
      }
    }));
    for (const [i, from] of Object.entries(r.samples)) for (let at = from[0], end = at +
      D.texts[i].tokens.length * size; at < end; at += A) {
      let sum = 0;
      for (let m = 0; m < A; m++) sum += BYTES[at + m];
      if (sum !== STEPS) wrong = wrong || `weights of a token add up to ${(sum / STEPS).toFixed(3)}`;
    }
    if (s.mask === "exclude" && held !== 0) wrong = wrong || `${s.masked.join(", ")} is excluded but has weight`;
    if (wrong) said.push(`${name}: ${wrong}`);
  }
  return said;
}

// Colours

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const css = c => `rgb(${c.map(Math.round).join(",")})`;
const mix = (a, b, f) => a.map((x, i) => x + (b[i] - x) * f);
function along(stops, f) {
  const at = Math.min(Math.max(f || 0, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
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
  const ends = [rgb("#ffb757"), rgb("#a9b8ff")], middle = mix(paper, [255, 255, 255], 0.06);
  LOOK = {dark, paper, ink: of("ink"), soft: of("soft"), line: of("line"), accent: of("accent"),
    sequential: dark ? [...sequential].reverse() : sequential,
    diverging: dark ? diverging.map((_, i) => { const f = 2 * i / (diverging.length - 1) - 1;
      return mix(middle, ends[f > 0 ? 0 : 1], Math.abs(f)); }) : diverging,
    members: D.colours.members.map(hex => dark && hex === "#000000" ? "#ffffff" : hex),
    em: parseFloat(getComputedStyle(document.body).fontSize),
    sans: getComputedStyle(document.body).fontFamily, mono: of("mono")};
}
const DASH = [[], [7, 4], [8, 3, 2, 3], [2, 3], [10, 3], [6, 2, 2, 2, 2, 2], [2, 1], [14, 4]];
const hue = i => LOOK.members[i % LOOK.members.length];
const scaleOf = (most, signed = false) => ({most, signed, colour: v => Number.isNaN(v) ? LOOK.paper :
  signed ? along(LOOK.diverging, 0.5 + v / most / 2) : along(LOOK.sequential, v / most)});
const full = matrices => S.scale === "full" ? 1 :
  Math.max(0.01, ...matrices.map(w => w.reduce((a, b) => Math.max(a, b), 0)));

// Pens

const esc = text => String(text).replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/gu, sign => sign.length > 1 ? sign :
  "\ufffd")
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
    this.c.font = fontOf(o); this.c.fillStyle = o.fill || LOOK.ink; this.c.textBaseline = "middle";
    this.c.textAlign = o.align || "left";
    if (!o.turn) return this.c.fillText(text, x, y);
    this.c.save(); this.c.translate(x, y); this.c.rotate(o.turn); this.c.fillText(text, 0, 0); this.c.restore();
  }
  line(points, stroke, width = 1, dash = []) {
    this.c.beginPath(); points.forEach(([x, y], i) => i ? this.c.lineTo(x, y) : this.c.moveTo(x, y));
    this.c.strokeStyle = stroke; this.c.lineWidth = width; this.c.setLineDash(dash); this.c.stroke();
      this.c.setLineDash([]);
  }
  area(points, fill) {
    this.c.beginPath(); points.forEach(([x, y], i) => i ? this.c.lineTo(x, y) : this.c.moveTo(x, y));
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
const f = x => +x.toFixed(2);
const SILENT = new Proxy({}, {get: () => () => {}});

// Words

const pct = (v, digits = 1, sign = false) => Number.isNaN(v) ? "–" : (sign && v > 0 ? "+" : "") +
  (100 * v).toFixed(digits) + " %";
const inCell = (v, signed) => Number.isNaN(v) ? "" : Math.abs(v) < 0.005 ? (v > 0 && !signed ? "<1" : "0") :
  (signed && v > 0 ? "+" : "") + (100 * v).toFixed(0);
const VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"};
const visible = token => [...token].map(sign => VISIBLE[sign] || (/\p{C}/u.test(sign) ? "\ufffd" : sign)).join("") ||
  "∅";
const quantity = () => S.quantity === "weight" ? "fusion weight" : "norm-weighted share";
const number = n => n.toLocaleString("en");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const seedsSaid = series => chosen(series).map(r => r.seed).every(s => s === null) ? "" :
  S.seed === "mean" && series.records.length > 1 ? `mean of ${series.records.length} seeds` :
    `seed ${chosen(series)[0]?.seed ?? "–"}`;
function standsAll(shown) { // the same of several, what they share but once
  const [first, ...others] = shown.map(([series, m]) => stands(series, m).slice(series.label.length));
  const shared = first.split("; ")[0], rest = text => text.startsWith(shared) ? text.slice(shared.length + 1) :
    text.slice(1);
  return shown.length === 1 ? shown[0][0].label + first : `Each${shared}. ` +
    [first, ...others].map((text, i) => `${shown[i][0].label}:${rest(text)}`).join(" ");
}
function stands(series, m) { // what the numbers of a series stand on
  const kind = S.kind < 0 ? "" : ` of kind ${D.kinds[S.kind]}`, pool = S.pool === "both" ? "prompt and completion" :
    S.pool;
  const over = S.sample < 0 ? `n = ${plural(series.n, "sample")}` : `sample ${D.texts[S.sample].id}`;
  const runs = chosen(series).map(r => r.checkpoint || "unnamed"), base = chosen(series)[0]?.base;
  return `${series.label}: ${over}, ${m ? number(m.n) : 0} ${pool} tokens${kind}, padding excluded; ` +
    `${seedsSaid(series) || "no seed"}; checkpoint ` +
    (runs.length > 3 ? `${runs[0]} and ${runs.length - 1} more` : runs.join(", ")) + (base ? ` on base ${base}` : "") +
    (series.masked.length ? `; ${series.masked.join(", ")} masked (${series.mask})` : "") + ".";
}

// Parts of views: each draws at a place and returns its height

function heatmap(pen, out, x, y, w, o) {
  // o: title, columns, target (column), layers, value(l, c), say(l, c), row(l, c), scale
  const em = LOOK.em, L = o.layers.length, A = o.columns.length, small = {size: 0.8}, chosenLayer = o.marked ?? -1;
  const left = Math.max(...o.layers.map(name => widthOf(name, small))) + 0.7 * em;
  const cw = Math.min(7.5 * em, (w - left) / A), ch = Math.max(3, Math.min((L <= 6 ? 2.6 : L <= 12 ? 2 : L <= 24 ?
    1.5 : L <= 50 ? 1.15 : 0.8) * em, (o.room || Infinity) / L));
  const labels = o.columns.map((name, c) => fitted(name, Math.min(9 * em, (x + left + (c + 0.7) * cw) / 0.71),
    {size: 0.8, bold: true}));
  const widest = Math.max(...labels.map(name => widthOf(name, {size: 0.8, bold: true}))), flat = widest < cw - 0.3 * em;
  const top = y + (o.title ? 1.7 * em : 0.2 * em);
  if (o.title) pen.text(x + left, y + 0.7 * em, fitted(o.title, w - left, {size: 0.9, bold: true}),
    {size: 0.9, bold: true});
  for (let r = 0; r < L; r++) {
    const l = L - 1 - r, cy = top + r * ch; // the first layer is at the bottom
    if (l % Math.ceil(0.9 * em / ch) === 0) pen.text(x + left - 0.4 * em, cy + ch / 2, o.layers[l],
      {align: "right", size: Math.min(0.8, Math.max(0.7, 0.8 * ch / em)), fill: LOOK.soft, bold: l === chosenLayer});
    for (let c = 0; c < A; c++) {
      const v = o.value(l, c), colour = o.scale.colour(v), cx = x + left + c * cw;
      pen.rect(cx, cy, cw - 1, ch - 1, css(colour));
      if (cw > 2 * em && ch > em) pen.text(cx + cw / 2, cy + ch / 2, inCell(v, o.scale.signed),
        {align: "center", size: Math.min(0.82, 0.62 * ch / em), fill: inkOn(colour)});
      out.cells.push({x: cx, y: cy, w: cw - 1, h: ch - 1, say: o.say(l, c), act: o.act && (() => o.act(l, c))});
      if (o.row) out.rows.push(o.row(l, c));
    }
  }
  if (o.target >= 0) pen.rect(x + left + o.target * cw - 0.5, top - 1, cw, L * ch + 1, null, LOOK.ink, 2);
  if (chosenLayer >= 0) pen.rect(x + left - 1, top + (L - 1 - chosenLayer) * ch - 1, A * cw + 1, ch + 1, null,
    LOOK.accent, 2);
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
  const bold = {size: 0.8, fill: LOOK.soft}, ends = [low, scale.most].map(v =>
    pct(v, scale.most < 0.1 ? 1 : 0, scale.signed).replace(" %", scale.signed ? "" : " %"));
  const start = x + widthOf(ends[0], bold) + 0.4 * em;
  pen.text(x, y + 0.6 * em, ends[0], bold);
  for (let i = 0; i < steps; i++) pen.rect(start + i * long / steps, y + 0.15 * em, long / steps + 0.5, 0.9 * em,
    css(scale.colour(low + (scale.most - low) * i / (steps - 1))));
  const words = `${ends[1]}  ${label}`;
  pen.text(start + long + 0.4 * em, y + 0.6 * em, fitted(words, x + w - start - long - 0.4 * em, bold), bold);
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
  Object.assign(S, {layer: l, colour: String(m), show: n === S.b ? "b" : "a", view: "tokens"});
  refresh();
};

const named = (series, m) => series.members[m] + (series.members[m] === series.target ? " (target)" : "");
function panelOf(series, m, title, scale) { // the heatmap of a series
  const A = series.members.length, at = (l, c) => l * A + c;
  return {title, columns: series.members, target: series.members.indexOf(series.target), layers: series.layers, scale,
    value: (l, c) => m.w[at(l, c)], act: held().length ? drill(series) : null,
    say: (l, c) => `${title} · ${series.layers[l]} · ${named(series, c)}: ` +
      pct(m.w[at(l, c)]) + (Number.isNaN(m.sd[at(l, c)]) ? "" :
        ` ± ${pct(m.sd[at(l, c)])} (sd over ${m.each.length} seeds)`),
    row: (l, c) => ({series: series.label, seed: m.each.length > 1 ? "mean" : chosen(series)[0].seed,
      layer: series.layers[l],
      member: series.members[c], target: series.members[c] === series.target, [S.quantity]: m.w[at(l, c)],
      sd_over_seeds: Number.isNaN(m.sd[at(l, c)]) ? null : m.sd[at(l, c)], tokens: m.n})};
}

function nothing(pen, y, out) {
  const why = S.sample < 0 ? "No token is of this kind here, or the seed is not recorded." :
    "This sample is not kept in full for this choice, has no token of this kind, or A and B differ in their members.";
  pen.text(0, y + LOOK.em, why, {fill: LOOK.soft});
  out.caption = why;
  return 3 * LOOK.em;
}

// Views: (pen, width, out, clip) -> height

const DRAW = {
  layers(pen, w, out) {
    const series = focus(), m = mean(series);
    if (!m) return nothing(pen, 0, out);
    const scale = scaleOf(full([m.w]));
    let y = legend(pen, 0, 0, w, scale, quantity());
    y += heatmap(pen, out, 0, y, w, panelOf(series, m, series.label, scale));
    out.caption = `Mean ${quantity()} per layer and member, in percent; the frame marks the target, ` +
      `${series.target}. ${stands(series, m)}` +
      (held().length ? " Click a cell, or press Enter, to see its tokens." : "");
    return y;
  },

  compare(pen, w, out) {
    const pair = [D.series[S.a], D.series[S.b]], both = pair.map(mean);
    if (both.includes(null)) return nothing(pen, 0, out);
    const [one, two] = pair, [m, n] = both;
    const alike = String(one.members) === String(two.members) && String(one.layers) === String(two.layers);
    const scale = scaleOf(full([m.w, n.w])), wide = w > 44 * LOOK.em, count = alike ? 3 : 2, gap = 1.2 * LOOK.em;
    const pw = wide ? (w - gap * (count - 1)) / count : w;
    let y = legend(pen, 0, 0, w, scale, quantity()), most = 0;
    const panels = [panelOf(one, m, one.label, scale), panelOf(two, n, two.label, scale)];
    if (alike) {
      const change = n.w.map((v, i) => v - m.w[i]), A = one.members.length;
      const limit = Math.max(0.01, ...change.map(Math.abs)), difference = scaleOf(limit, true);
      if (wide) legend(pen, 2 * (pw + gap), 0, pw, difference, "points"); else most = limit;
      panels.push({...panels[1], title: "difference, points", scale: difference, value: (l, c) => change[l * A + c],
        act: null,
        say: (l, c) => `${two.label} − ${one.label} · ${one.layers[l]} · ${one.members[c]}: ` +
          pct(change[l * A + c], 1, true).replace(" %", " points"),
        row: (l, c) => ({series: "difference", seed: null, layer: one.layers[l], member: one.members[c],
          target: one.members[c] === two.target, [S.quantity]: change[l * A + c], sd_over_seeds: null, tokens: n.n})});
    }
    const start = y;
    let lowest = y;
    panels.forEach((panel, i) => {
      if (!wide && i === 2) y += legend(pen, 0, y, w, panel.scale, "difference, points");
      const height = heatmap(pen, out, wide ? i * (pw + gap) : 0, wide ? start : y, pw, panel);
      if (wide) lowest = Math.max(lowest, start + height); else y = lowest = y + height + gap;
    });
    out.caption = `Mean ${quantity()} in percent` + (alike ? `, and the difference, ${two.label} less ${one.label}. ` :
      "; members or layers differ, so there is no difference. ") +
      (one.same === two.same ? "The same samples in both. " : "The samples are NOT the same. ") +
        standsAll([[one, m], [two, n]]);
    return lowest;
  },

  all(pen, w, out) {
    const shown = D.series.map(series => [series, mean(series)]).filter(([, m]) => m);
    if (!shown.length) return nothing(pen, 0, out);
    const scale = scaleOf(full(shown.map(([, m]) => m.w))), gap = 1.2 * LOOK.em, em = LOOK.em;
    let panels;
    if (S.by === "run") panels = shown.map(([series, m]) => panelOf(series, m, series.label, scale));
    else { // a panel per member, a column per series that has it
      const names = [...new Set(shown.flatMap(([series]) => series.members))];
      const layers = shown.reduce((most, [series]) => series.layers.length > most.length ? series.layers : most, []);
      panels = names.map(name => {
        const of = (l, c) => { const [series, m] = shown[c], i = series.members.indexOf(name);
          return i < 0 || l >= series.layers.length ? NaN : m.w[l * series.members.length + i]; };
        return {title: name, columns: shown.map((_, c) => String(c + 1)), target: -1, layers, scale, value: of,
          say: (l, c) => `${name} · ${shown[c][0].label} · ${layers[l]}: ${pct(of(l, c))}`,
          row: (l, c) => ({member: name, series: shown[c][0].label, layer: layers[l], [S.quantity]: of(l, c)})};
      });
    }
    const widest = Math.max(...panels.map(p => p.columns.length)), need = (3 + 2.5 * widest) * em;
    const across = Math.max(1, Math.min(panels.length, Math.floor((w + gap) / (need + gap)))), pw =
      (w - gap * (across - 1)) / across;
    let y = legend(pen, 0, 0, w, scale, `${quantity()}, one scale`), tallest = 0;
    if (S.by === "member") y += keys(pen, 0, y, w, shown.map(([series], c) => [`${c + 1} ${series.label}`]));
    panels.forEach((panel, i) => {
      if (i && i % across === 0) { y += tallest + gap; tallest = 0; }
      tallest = Math.max(tallest, heatmap(pen, out, (i % across) * (pw + gap), y, pw, panel));
    });
    out.caption = `Mean ${quantity()} per layer in percent, every panel on one scale` +
      (S.by === "run" ? "; frames mark each one's target. " : ". ") + standsAll(shown);
    return y + tallest;
  },

  depth(pen, w, out) {
    const shown = D.series.map((series, i) => [series, mean(series), i]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return nothing(pen, 0, out);
    const y = 0.6 * em + keys(pen, 0, 0, w, shown.map(([series, , i]) => [series.label, (x, y) => {
      pen.line([[x, y], [x + 2.4 * em, y]], hue(i), 2.4, DASH[i % DASH.length]);
      pen.dot(x + 1.2 * em, y, 4, hue(i));
    }, 2.8 * em]));
    const uniform = series => Math.log2(Math.max(2, series.members.length -
      (series.mask === "exclude" ? series.masked.length : 0))); // bits over the members that take part
    const own = (series, l) => l * series.members.length + series.members.indexOf(series.target);
    const A = Math.max(...shown.map(([series]) => series.members.length));
    const charts = [
      {title: `${quantity()} on the target's own adapter (%)`, quantity: `target_${S.quantity}`, say: v => pct(v),
        level: 1 / A,
        tick: v => String(+(100 * v).toFixed(1)), of: (series, m) => series.layers.map((_, l) =>
          [m.w[own(series, l)], m.sd[own(series, l)], m.each.map(e => e.w[own(series, l)])])},
      {title: "entropy of a token's weights (bits)", quantity: "entropy_bits", level: Math.log2(A), tick: v =>
        String(+v.toFixed(2)),
        say: (v, series) => `${v.toFixed(2)} bits, ${pct(v / uniform(series), 0)} of uniform`,
        of: (series, m) => series.layers.map((_, l) => [m.e[l], m.esd[l], m.each.map(e => e.e[l])])}];
    const wide = w > 50 * em, cw = wide ? (w - 2 * em) / 2 : w, tall = 17 * em;
    charts.forEach((chart, number) => {
      const cx = wide ? number * (cw + 2 * em) : 0, cy = wide ? y : y + number * (tall + 4.2 * em), left = cx + 3 * em,
        right = cx + cw - em;
      const lines = shown.map(([series, m, i]) => [series, chart.of(series, m), i]);
      const top = 1.08 * Math.max(chart.level, ...lines.flatMap(([, values]) =>
        values.flatMap(([v, sd, each]) => [v + (sd || 0), ...each])));
      const depth = Math.max(...lines.map(([, values]) => values.length)), bottom = cy + tall;
      const px = l => left + (depth < 2 ? 0.5 : (l + 0.5) / depth) * (right - left), py = v =>
        bottom - v / top * (tall - 2 * em);
      pen.text(cx, cy + 0.5 * em, fitted(chart.title, cw, {bold: true, size: 0.9}), {bold: true, size: 0.9});
      for (let i = 0, step = round(top / 4); i * step <= top; i++) {
        const v = i * step;
        pen.line([[left, py(v)], [right, py(v)]], LOOK.line);
        pen.text(left - 0.4 * em, py(v), chart.tick(v), {align: "right", size: 0.8, fill: LOOK.soft});
      }
      pen.line([[left, py(chart.level)], [right, py(chart.level)]], LOOK.soft, 1.2, [2, 3]);
      pen.text(right, py(chart.level) - 0.6 * em, "uniform", {align: "right", size: 0.75, fill: LOOK.soft});
      const step = Math.ceil(depth / Math.floor((right - left) / (3 * em))), longest =
        lines.find(([, values]) => values.length === depth)[0];
      for (let l = 0; l < depth; l += step) pen.text(px(l), bottom + 0.8 * em, longest.layers[l],
        {align: "center", size: 0.8, fill: LOOK.soft});
      pen.text((left + right) / 2, bottom + 2.2 * em, "layer", {align: "center", size: 0.8, fill: LOOK.soft});
      for (const [series, values, i] of lines) {
        if (values.some(([, sd]) => sd > 0)) pen.area([...values.map(([v, sd], l) => [px(l), py(v + sd)]),
          ...values.map(([v, sd], l) => [px(l), py(v - sd)]).reverse()], hue(i));
        pen.line(values.map(([v], l) => [px(l), py(v)]), hue(i), 2, DASH[i % DASH.length]);
        values.forEach(([v, sd, each], l) => {
          if (each.length > 1) for (const one of each) pen.dot(px(l), py(one), 2.2, css(LOOK.paper), hue(i));
          pen.dot(px(l), py(v), 4, hue(i));
          const spread = each.length > 1 ?
            ` (${each.length} seeds: ${each.map(one => chart.tick(one) + (number ? "" : " %")).join(", ")})` : "";
          out.cells.push({x: px(l) - 6, y: py(v) - 6, w: 12, h: 12,
            say: `${series.label} · ${series.layers[l]}: ${chart.say(v, series)}${spread}`});
          out.rows.push({series: series.label, target: series.target, layer: series.layers[l],
            quantity: chart.quantity, value: v,
            sd_over_seeds: Number.isNaN(sd) ? null : sd, seeds: each.length});
        });
      }
    });
    out.caption = "Lines are means over seeds, bands ± 1 sd, open points single seeds; dotted: uniform weights. " +
      "Entropy is always of the weights. " +
      standsAll(shown);
    return y + (wide ? tall : 2 * tall + 4.2 * em) + 3.2 * em;
  },

  tokens(pen, w, out, clip) {
    const here = tokensOf();
    if (!here) return nothing(pen, 0, out);
    const {series, text, T, L, A, of, label} = here, em = LOOK.em;
    const member = S.colour === "winner" || +S.colour >= A ? -1 : +S.colour;
    const signed = S.show === "diff", column = member < 0 && signed ? series.members.indexOf(series.target) : member;
    const scale = signed ? scaleOf(here.most(column), true) : scaleOf(S.scale === "full" ? 1 : here.most(column));
    const winner = (l, t) => { let best = 0; for (let m = 1; m < A; m++) if (of(l, t, m) > of(l, t, best)) best = m;
      return best; };
    const colour = (l, t) => {
      if (column >= 0) return scale.colour(of(l, t, column));
      const best = winner(l, t), strength = Math.min(Math.max((of(l, t, best) - 1 / A) / (1 - 1 / A), 0), 1);
      return mix(LOOK.paper, rgb(hue(best)), 0.2 + 0.75 * strength);
    };
    const layer = Math.min(S.layer, L - 1), detail = S.token >= 0 && S.token < T, beside = w > 46 * em;
    const dw = beside ? Math.min(20 * em, w * 0.34) : w, sw = detail && beside ? w - dw - 1.5 * em : w;
    const all = t => series.members.map((name, m) => `${name} ${pct(of(layer, t, m), 1, signed)}`).join(", ");
    const part = t => ["prompt", "completion", "last"][text.marks[t]];
    const about = t => `token ${t + 1} “${visible(text.tokens[t])}” (${part(t)}, ${D.kinds[text.kinds[t]]}) · ` +
      `${series.layers[layer]}: ${all(t)}`;
    let y = 0;
    if (column >= 0) y += legend(pen, 0, 0, sw, scale,
      `${signed ? label + ", points of " : quantity() + " of "}${series.members[column]}`);
    else y += keys(pen, 0, 0, sw, series.members.map((name, m) =>
      [`${m + 1} ${name}${name === series.target ? " (target)" : ""}`,
      (x, y) => pen.rect(x, y - 0.5 * em, 1.1 * em, em, css(mix(LOOK.paper, rgb(hue(m)), 0.95))), 1.5 * em,
        name === series.target]));
    // all layers at once: a pixel per token and layer
    const left = Math.max(...series.layers.map(name => widthOf(name, {size: 0.75}))) + 0.5 * em, bh =
      Math.max(2, Math.min(1.1 * em, 9 * em / L));
    const bitmap = pen === SILENT ? null : overview(T, L, colour);
    const mw = Math.min(sw - left, T * 1.2 * em), px = mw / T, top = y;
    pen.image(left, top, mw, L * bh, bitmap);
    const every = Math.ceil(em / bh);
    for (let l = 0; l < L; l += every) pen.text(left - 0.3 * em, top + (L - 0.5 - l) * bh, series.layers[l],
      {align: "right", size: 0.75, fill: LOOK.soft});
    pen.rect(left - 1, top + (L - 1 - layer) * bh - 1, mw + 2, bh + 2, null, LOOK.ink, 1.5);
    if (detail) pen.rect(left + S.token * px - 1, top - 1, px + 2, L * bh + 2, null, LOOK.accent, 1.5);
    if (L * T <= MANY) for (let l = L - 1; l >= 0; l--) for (let t = 0; t < T;
      t++) out.cells.push({x: left + t * px, y: top + (L - 1 - l) * bh, w: px, h: bh,
      say: `${series.layers[l]} · token ${t + 1} “${visible(text.tokens[t])}”`, act: () =>
        { S.layer = l; S.token = t; refresh(); }});
    else out.areas.push({x: left, y: top, w: mw, h: L * bh, at: (dx, dy) =>
      { const l = L - 1 - Math.floor(dy / bh), t = Math.floor(dx / px);
      return {say: `${series.layers[l]} · token ${t + 1} “${visible(text.tokens[t])}”`, act: () =>
        { S.layer = l; S.token = t; refresh(); }}; }});
    y += L * bh + em;
    pen.text(0, y + 0.4 * em, fitted(`${series.layers[layer]}, ${label}`, sw, {bold: true}), {bold: true});
    y += 1.5 * em;
    if (detail && !beside) y += tokenPanel(pen, out, 0, y, dw, here, layer) + em;
    const strip = y, style = {mono: true, size: 0.86}, boxH = (column < 0 ? 2.05 : 1.6) * em, found = matches(text);
    let x = 0;
    text.tokens.forEach((token, t) => {
      const said = fitted(visible(token), sw - em, style), wide = cachedWidth(said, style) + 0.34 * em;
      if (x && x + wide > sw) { x = 0; y += boxH; }
      const on = counted(text, t), far = y + boxH < clip[0] || y > clip[1];
      if (!far) {
        const fill = colour(layer, t), ink = on ? inkOn(fill) : LOOK.soft;
        pen.rect(x, y, wide - 1.5, boxH - 3, on ? css(fill) : null, on ? null : LOOK.line);
        pen.text(x + wide / 2 - 0.75, y + (column < 0 ? 0.36 : 0.46) * boxH, said,
          {...style, align: "center", fill: ink});
        if (column < 0 && on) pen.text(x + wide / 2 - 0.75, y + 0.75 * boxH, String(winner(layer, t) + 1),
          {size: 0.6, align: "center", fill: ink});
        if (+text.marks[t] === COMPLETION) pen.line([[x + 1, y + boxH - 2], [x + wide - 2.5, y + boxH - 2]], LOOK.ink,
          1.4);
        if (found.has(t)) pen.rect(x - 0.5, y - 0.5, wide - 0.5, boxH - 2, null, LOOK.accent, 2.5);
        if (t === S.token) pen.rect(x - 0.5, y - 0.5, wide - 0.5, boxH - 2, null, LOOK.ink, 2.5);
      }
      out.cells.push({x, y, w: wide - 1.5, h: boxH - 3, token: t, get say() { return about(t); }, act: () =>
        { S.token = t; refresh(); }});
      x += wide;
    });
    y += boxH;
    if (detail && beside) { // stays in sight when the text scrolls, and fits into it
      const at = Math.max(0, Math.min(clip[0], y - 10 * em)), room = Math.max(clip[1] - clip[0] - 8 * em, 8 * em);
      y = Math.max(y, at + tokenPanel(pen, out, w - dw, at, dw, here, layer, room));
    }
    if (out.full) text.tokens.forEach((token, t) => series.members.forEach((name, m) =>
      out.rows.push({series: label, sample: text.id, layer: series.layers[layer], position: t + 1, token,
      part: part(t), kind: D.kinds[text.kinds[t]], member: name,
        [S.quantity]: f5(of(layer, t, m))})));
    out.caption = `Sample ${text.id}, ${plural(T, "token")}, ${label}: ` +
      (column < 0 ? "each token has the colour and number of the member that wins it, fainter towards uniform" :
      `each token is coloured by the ${signed ? "change of the " : ""}${quantity()} of ${series.members[column]}`) +
        `. Underlined tokens predict the completion; outlined ones are not counted by the filters. ` +
      `Single tokens are exact to ± 0.4 points. Checkpoint ${here.checkpoint}, padding excluded. ` +
        (found.size ? `${plural(found.size, "token")} match the search. ` : "") +
      `${D.texts.length} of ${series.n} samples can be read token by token. Click a token to see all of its layers.`;
    return Math.max(y, strip);
  },
};

function tokenPanel(pen, out, x, y, w, here, layer, room) { // all layers of the chosen token
  const {series, text, of, label} = here, signed = S.show === "diff", A = series.members.length;
  const values = series.layers.flatMap((_, l) => series.members.map((_, m) => of(l, S.token, m)));
  const scale = scaleOf(signed ? Math.max(0.01, ...values.map(Math.abs)) : 1, signed);
  return heatmap(pen, out, x, y, w, {title: `token ${S.token + 1} “${visible(text.tokens[S.token])}”`,
    columns: series.members, scale,
    target: series.members.indexOf(series.target), layers: series.layers, marked: layer, room, value: (l, m) =>
      values[l * A + m],
    say: (l, m) => `${label} · token ${S.token + 1} · ${series.layers[l]} · ${series.members[m]}: ` +
      pct(values[l * A + m], 1, signed),
    act: l => { S.layer = l; refresh(); }});
}
let overviewed = {}; // the picture of all layers stays while only the layer or the token changes
function overview(T, L, colour) {
  const {a, b, sample, seed, show, quantity, scale, colour: by, view} = S;
  const key = JSON.stringify([a, b, sample, seed, show, quantity, scale, by, view, LOOK.dark]);
  if (overviewed.key === key) return overviewed.bitmap;
  const bitmap = document.createElement("canvas");
  bitmap.width = T; bitmap.height = L;
  const context = bitmap.getContext("2d"), pixels = context.createImageData(T, L);
  for (let l = 0; l < L; l++) for (let t = 0; t < T; t++) {
    pixels.data.set([...colour(l, t).map(Math.round), 255], 4 * ((L - 1 - l) * T + t));
  }
  context.putImageData(pixels, 0, 0);
  overviewed = {key, bitmap};
  return bitmap;
}
function round(v) { // to a step that people count in
  const power = 10 ** Math.floor(Math.log10(v));
  return power * [1, 2, 2.5, 5, 10].find(step => step * power >= 0.8 * v);
}
const f5 = v => +v.toFixed(5);
const widths = new Map();
function cachedWidth(text, style) {
  const key = LOOK.em + text;
  if (!widths.has(key)) widths.set(key, widthOf(text, style));
  return widths.get(key);
}
const held = () => D.texts.map((_, i) => i).filter(i => heldIn(focus(), i) >= 0);
function tokensOf() { // the weights of the tokens that are shown, as a function of layer, token and member
  const i = S.sample >= 0 ? S.sample : held()[0];
  if (i === undefined) return null;
  const text = D.texts[i], T = text.tokens.length;
  const one = n => {
    const series = D.series[n], record = chosen(series).find(r => r.samples[i]), part = S.quantity === "weight" ? 0 : 1;
    if (!record) return null;
    const A = series.members.length, from = record.samples[i][part];
    return {series, record, value: (l, t, m) => BYTES[from + (l * T + t) * A + m] / STEPS};
  };
  const a = one(S.a), b = one(S.b), shown = S.show === "a" ? a : b;
  if (!shown || S.show === "diff" && (!a || String(a.series.members) !== String(b.series.members) ||
    a.series.layers.length !== b.series.layers.length)) return null;
  const {series, record} = shown, L = series.layers.length, A = series.members.length, name = one => one.series.label +
    (one.record.seed === null ? "" : `, seed ${one.record.seed}`);
  const of = S.show === "diff" ? (l, t, m) => b.value(l, t, m) - a.value(l, t, m) : shown.value;
  const most = m => { let top = 0.01; for (let l = 0; l < L; l++) for (let t = 0; t < T; t++) top =
    Math.max(top, Math.abs(of(l, t, Math.max(m, 0)))); return top; };
  return {series, text, T, L, A, of, most, checkpoint: record.checkpoint || "unnamed", label: S.show === "diff" ?
    `${name(b)} − ${name(a)}` : name(shown)};
}
function matches(text) {
  const wanted = S.query.toLowerCase(), found = new Set();
  if (!wanted) return found;
  let joined = "";
  const ends = text.tokens.map(token => (joined += token).length), lower = joined.toLowerCase();
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + 1))
    ends.forEach((end, t) => { if (end > at && end - text.tokens[t].length < at + wanted.length) found.add(t); });
  return found;
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
const main = document.getElementById("explorer"), tabs = make("div", {role: "tablist", "aria-label": "Views"}),
  controls = make("div", {class: "controls"});
const canvas = make("canvas", {tabindex: 0, role: "img"}), spacer = make("div", {class: "spacer"}), stage =
  make("div", {class: "stage", role: "tabpanel"}, spacer, canvas);
const tip = make("div", {class: "tip", role: "status", "aria-live": "polite"}), caption =
  make("p", {class: "caption"}), table = make("div", {class: "numbers"});
const numbers = make("details", {ontoggle: () => refresh(true)}, make("summary", {}, "Numbers as a table"), table),
  check = make("p", {class: "check"});
const exports = make("div", {class: "exports", role: "group", "aria-label": "Export what is on screen"},
  ...["SVG", "PNG", "CSV", "JSON"].map(kind => make("button", {type: "button", onclick: () => save(kind),
    title: `Save what is on screen as ${kind}`}, kind)),
  make("button", {type: "button", class: "theme", title: "Light, dark, or as the system", onclick: turn}, "Theme"));
main.replaceChildren(make("header", {}, make("h1", {}, D.title), tabs, exports), controls, stage, tip,
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

function select(key, label, options, parse = String) { // options: [value, words]
  const box = make("select", {id: `choose-${key}`, onchange: event => { S[key] = parse(event.target.value); refresh();
    }});
  for (const [value, words] of options) {
    const option = make("option", {value}, words);
    option.selected = String(S[key]) === String(value);
    box.append(option);
  }
  return make("label", {}, make("span", {}, label), box);
}
function choices() {
  const a = focus(), runs = D.series.map((s, i) => [i, s.label]), view = S.view, parts = [];
  const total = k => a.records[0].counts.reduce((sum, kinds, p) => D.pools[S.pool].includes(p) ? sum + kinds[k] : sum,
    0);
  if (several && view !== "all" && view !== "depth") parts.push(...(view === "layers" ? [] :
    [select("a", "A", runs, Number)]), select("b", view === "layers" ? "Run" : "B", runs, Number));
  if (several && view === "tokens") parts.push(select("show", "Show", [["a", "A"], ["b", "B"], ["diff", "B − A"]]));
  if (SEEDS.length > 1) parts.push(select("seed", "Seed", [["mean", view === "tokens" ? "the first" : "mean of all"],
    ...SEEDS.map((s, i) => [i, s])], v => v === "mean" ? v : SEEDS[+v]));
  const samples = D.texts.map((text, i) => [i, `${i + 1}: ${text.id}`]);
  if (samples.length) parts.push(select("sample", "Sample", view === "tokens" ? samples : [[-1, `all ${number(a.n)}`],
    ...samples], Number));
  parts.push(select("pool", "Tokens", Object.keys(D.pools).map(name => [name, name === "both" ?
    "prompt and completion" : name])));
  parts.push(select("kind", "Kind", [[-1, KIND], ...D.kinds.map((name, k) =>
    [k, S.sample < 0 ? `${name} (${number(total(k))})` : name])], Number));
  parts.push(select("quantity", "Quantity", [["weight", "weight"], ["share", "norm-weighted"]]));
  if (view !== "depth") parts.push(select("scale", "Colours", [["full", "0 to 100 %"], ["most", "0 to largest"]]));
  if (view === "all") parts.push(select("by", "Panels", [["run", "by run"], ["member", "by member"]]));
  if (view === "tokens") {
    const shown = focus();
    parts.push(select("colour", "Colour by", [["winner", S.show === "diff" ? "target" : "winner"],
      ...shown.members.map((name, m) => [m, name + (name === shown.target ? " (target)" : "")])]));
    const slider = make("input", {type: "range", id: "choose-layer", min: 0, max: shown.layers.length - 1, step: 1,
      oninput: event => { S.layer = +event.target.value; refresh(true); }});
    slider.value = S.layer;
    slider.setAttribute("aria-valuetext", shown.layers[Math.min(S.layer, shown.layers.length - 1)]);
    parts.push(make("label", {class: "slider"}, make("span", {}, "Layer"), slider));
    const search = make("input", {type: "search", id: "choose-query", placeholder: "text in tokens", oninput: event =>
      { S.query = event.target.value; find(); }});
    search.value = S.query;
    parts.push(make("label", {}, make("span", {}, "Search"), search));
  }
  const active = document.activeElement?.id;
  controls.replaceChildren(...parts);
  if (active?.startsWith("choose-")) document.getElementById(active)?.focus();
  if (view === "tokens") document.getElementById("choose-sample") && S.sample < 0 &&
    (document.getElementById("choose-sample").value = held()[0]);
  if (SEEDS.length > 1) document.getElementById("choose-seed").value = S.seed === "mean" ? "mean" :
    SEEDS.indexOf(S.seed);
}
function find() { // to the first match
  refresh(true);
  const i = S.sample >= 0 ? S.sample : held()[0], first = i === undefined ? undefined :
    [...matches(D.texts[i])].sort((p, q) => p - q)[0];
  const cell = first === undefined ? null : drawn.cells.find(c => c.token === first);
  if (cell && (cell.y < stage.scrollTop || cell.y + cell.h > stage.scrollTop + stage.clientHeight)) stage.scrollTop =
    cell.y - stage.clientHeight / 3;
}

let drawn = {cells: [], rows: [], areas: []};
function draw(measured) {
  look();
  const w = stage.clientWidth, dpr = Math.min(window.devicePixelRatio || 1, 3);
  const height = measured || DRAW[S.view](SILENT, w, {cells: [], rows: [], areas: []}, [0, Infinity]);
  spacer.style.height = `${Math.ceil(height) + 6}px`;
  const tall = stage.clientHeight, top = Math.min(stage.scrollTop, Math.max(0, height + 6 - tall));
  canvas.width = w * dpr; canvas.height = tall * dpr;
  canvas.style.width = `${w}px`; canvas.style.height = `${tall}px`; canvas.style.top = `${top}px`;
  const context = canvas.getContext("2d");
  context.scale(dpr, dpr);
  context.translate(2, 2 - top);
  drawn = {cells: [], rows: [], areas: [], caption: "", height, full: numbers.open};
  const pen = new CanvasPen(context);
  DRAW[S.view](pen, w - 4, drawn, [top, top + tall]);
  if (S.cursor >= 0 && drawn.cells[S.cursor]) { const c = drawn.cells[S.cursor];
    pen.rect(c.x - 1, c.y - 1, c.w + 2, c.h + 2, null, LOOK.accent, 3); }
  canvas.drawn = drawn; // for whoever tests the page
  canvas.setAttribute("aria-label", `${VIEWS[S.view]}. ${drawn.caption} Arrow keys move from cell to cell.`);
  caption.textContent = drawn.caption;
}
function refresh(kept = false) {
  if (!kept) { S.cursor = -1; choices(); }
  document.getElementById("choose-layer")?.setAttribute("aria-valuetext", focus().layers[S.layer] || "");
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
  const shown = drawn.rows.slice(0, 600), names = Object.keys(shown[0] || {});
  const cell = value => make("td", {}, typeof value === "number" ? String(+value.toPrecision(5)) : String(value ?? ""));
  table.replaceChildren(make("table", {}, make("thead", {}, make("tr", {},
    ...names.map(name => make("th", {scope: "col"}, name.replaceAll("_", " "))))),
    make("tbody", {}, ...shown.map(row => make("tr", {}, ...names.map(name => cell(row[name])))))),
    drawn.rows.length > shown.length ? `… ${number(drawn.rows.length - shown.length)} more rows in the CSV` : "");
}

// Pointer and keyboard

function under(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - 2, y = event.clientY - box.top - 2 +
    parseFloat(canvas.style.top);
  const within = c => x >= c.x && x < c.x + c.w + 1.5 && y >= c.y && y < c.y + c.h + 3;
  const area = drawn.areas.find(within);
  return area ? area.at(x - area.x, y - area.y) : drawn.cells.find(within);
}
function tell(text, x, y) {
  tip.textContent = text;
  tip.style.display = "block";
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? Math.max(2, y - tip.offsetHeight - 8) : y + 18}px`;
}
function hide() { tip.style.display = "none"; }
canvas.addEventListener("pointermove", event => { const cell = under(event);
  canvas.classList.toggle("acts", !!cell?.act); if (cell) tell(cell.say, event.clientX, event.clientY); else hide(); });
canvas.addEventListener("pointerleave", hide);
canvas.addEventListener("click", event => { const cell = under(event); if (cell?.act) cell.act();
  else if (cell) tell(cell.say, event.clientX, event.clientY); });
canvas.addEventListener("keydown", event => {
  const way = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key], cells =
    drawn.cells;
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); const kept = S.cursor;
    cells[kept]?.act?.(); if (S.view === "tokens") { S.cursor = kept; draw(); } return; }
  if (event.key === "Escape") { S.cursor = -1; S.token = -1; return refresh(true); }
  if (!way || !cells.length) return;
  event.preventDefault();
  if (S.cursor < 0) S.cursor = 0;
  else {
    const from = cells[S.cursor], mid = c => [c.x + c.w / 2, c.y + c.h / 2], [x, y] = mid(from);
    let best = -1, least = Infinity;
    cells.forEach((c, i) => {
      const [cx, cy] = mid(c), ahead = (cx - x) * way[0] + (cy - y) * way[1], aside =
        Math.abs((cx - x) * way[1] + (cy - y) * way[0]);
      if (ahead > 0.5 && ahead + 4 * aside < least) { least = ahead + 4 * aside; best = i; }
    });
    if (best >= 0) S.cursor = best;
  }
  const c = cells[S.cursor];
  if (c.y < stage.scrollTop) stage.scrollTop = c.y - 8; else if (c.y + c.h > stage.scrollTop +
    stage.clientHeight) stage.scrollTop = c.y + c.h - stage.clientHeight + 12;
  draw(drawn.height);
  const box = canvas.getBoundingClientRect();
  tell(c.say, box.left + c.x + c.w, box.top + c.y + c.h - parseFloat(canvas.style.top));
});
let waiting = false;
const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } };
stage.addEventListener("scroll", soon);
new ResizeObserver(soon).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
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
  const w = stage.clientWidth - 4, em = LOOK.em, clip = [0, Infinity];
  const whole = {cells: [], rows: [], areas: [], caption: "", full: true};
  const height = DRAW[S.view](SILENT, w, whole, clip) + 2 * em, lines = [];
  whole.caption.split(" ").forEach(word => { const last = lines.length - 1;
    if (last >= 0 && widthOf(`${lines[last]} ${word}`) < w) lines[last] += ` ${word}`; else lines.push(word); });
  const tall = height + lines.length * 1.3 * em, said = pen => lines.forEach((line, i) =>
    pen.text(0, height + i * 1.3 * em, line, {fill: LOOK.soft}));
  if (kind === "SVG") {
    const pen = new SvgPen();
    DRAW[S.view](pen, w, {cells: [], rows: [], areas: []}, clip);
    said(pen);
    const size = `width="${f(w + 8)}" height="${f(tall + 8)}"`, paper = css(LOOK.paper);
    const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 ${f(w + 8)} ${f(tall + 8)}" ${size}>`;
    give(new Blob([`${head}<title>${esc(whole.caption)}</title><rect x="-4" y="-4" ${size} fill="${paper}"/>`,
      pen.parts.join("\n"), "</svg>"], {type: "image/svg+xml"}));
  } else if (kind === "PNG") {
    const sheet = document.createElement("canvas"), factor = Math.min(2, 16000 / tall), context =
      sheet.getContext("2d");
    sheet.width = (w + 8) * factor; sheet.height = (tall + 8) * factor;
    context.scale(factor, factor); context.translate(4, 4);
    const pen = new CanvasPen(context);
    pen.rect(-4, -4, w + 8, tall + 8, css(LOOK.paper));
    DRAW[S.view](pen, w, {cells: [], rows: [], areas: []}, clip);
    said(pen);
    sheet.toBlob(give, "image/png");
  } else if (kind === "CSV") {
    // a spreadsheet would compute text that begins like a formula
    const field = value => typeof value === "number" ? String(value) :
      `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
    const names = Object.keys(whole.rows[0] || {});
    give(new Blob([[names.join(","), ...whole.rows.map(row => names.map(name =>
      field(row[name])).join(","))].join("\n") + "\n"], {type: "text/csv"}));
  } else {
    const {view, pool, quantity, sample} = S, about = {view, quantity, tokens: pool, kind: S.kind < 0 ? "every" :
      D.kinds[S.kind],
      sample: sample < 0 ? "all" : D.texts[sample].id, caption: whole.caption};
    give(new Blob([JSON.stringify({...about, rows: whole.rows}, null, 1)], {type: "application/json"}));
  }
}

const wrong = faults();
const error = Math.max(...D.series.flatMap(s => s.records.map(r => r.error)));
check.textContent = wrong.length ? `Do not read on: ${wrong.join("; ")}.` :
  `Checked: in every record each token's weights add up to 1 (largest miss ${error.toExponential(0)})` +
    (D.series.some(s => s.mask === "exclude") ? ", excluded members have exactly 0." : ".");
check.classList.toggle("wrong", wrong.length > 0);
if (wrong.length) check.setAttribute("role", "alert");
refresh();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
})().catch(error => {
  document.getElementById("explorer").append(`This page could not start (${error.message}); a browser of 2023 can.`);
  throw error;
});
