// Panels: heatmaps and their legends; each function draws at a position and returns its height

const HEADING = {size: 0.9, bold: true};
function titleLines(title, w) { // the lines of a title, which breaks after its last dot if it is too long
  const at = title.lastIndexOf(" · ");
  return at < 0 || widthOf(title, HEADING) < w - 3 * LOOK.em ? [title] : [title.slice(0, at), title.slice(at + 3)];
}
function heatmap(pen, out, x, y, w, o) {
  // o: id, title, heads (lines of the longest title in a row of panels), columns, target (a column), layers, marked (a
  // layer), value(l, c), label(l, c), row(l, c), act(l, c), hatched(l, c), scale, room (maximum height), roomy (a view of
  // few panels: the pixels that its cells may grow into, 0 if that is unknown), under(l, c): a second line in large
  // cells, subtitle
  const em = LOOK.em, L = o.layers.length, A = o.columns.length, small = {size: 0.8}, bold = {size: 0.8, bold: true};
  const marked = o.marked ?? -1, left = Math.max(...o.layers.map(name => widthOf(name, small))) + 0.7 * em;
  const tall = (L <= 6 ? 2.6 : L <= 12 ? 2 : L <= 24 ? 1.5 : L <= 50 ? 1.15 : 0.8) * em;
  const cw = Math.min((o.roomy ? 18 : 7.5) * em, (w - left) / A);
  const labels = o.columns.map((name, c) => fitted(name, Math.min(9 * em, (x + left + (c + 0.7) * cw) / 0.71), bold));
  const widest = Math.max(...labels.map(name => widthOf(name, bold))), flat = widest < cw - 0.3 * em;
  const heads = titleLines(o.title, w), lines = Math.max(heads.length, o.heads || 1) + (o.subtitle ? 1 : 0);
  const top = y + (0.5 + 1.2 * lines) * em, foot = flat ? 1.5 * em : widest * 0.71 + 0.9 * em;
  const grown = Math.min((o.roomy - (top - y) - foot - 0.3 * em) / L, 14 * em, 2.2 * cw);
  const ch = o.roomy ? Math.max(tall, grown) : Math.max(3, Math.min(tall, (o.room || Infinity) / L));
  const large = cw > 5 * em && ch > 2.4 * em;
  const narrow = w < 11 * em, heading = narrow ? {...HEADING, size: 0.8} : HEADING, start = narrow ? x : x + left;
  heads.forEach((line, i) =>
    pen.text(start, y + (0.7 + 1.2 * i) * em, fitted(line, x + w - start, heading), heading));
  if (o.subtitle) pen.text(x, y + (0.7 + 1.2 * heads.length) * em, fitted(o.subtitle, w, small), small);
  for (let r = 0; r < L; r++) {
    const l = L - 1 - r, cy = top + r * ch; // the first layer is at the bottom
    if (l % Math.ceil(0.9 * em / ch) === 0) pen.text(x + left - 0.4 * em, cy + ch / 2, o.layers[l],
      {align: "right", size: clamp(0.8 * ch / em, 0.7, 0.8), fill: LOOK.soft, bold: l === marked});
    for (let c = 0; c < A; c++) {
      const v = o.value(l, c), colour = o.scale.colour(v), cx = x + left + c * cw;
      pen.rect(cx, cy, cw - 1, ch - 1, css(colour));
      if (o.hatched?.(l, c)) hatch(pen, cx, cy, cw - 1, ch - 1, inkOn(colour));
      const below = large ? o.under?.(l, c) ?? "" : "", ink = {align: "center", fill: inkOn(colour)};
      if (cw > 1.7 * em && ch > em) pen.text(cx + cw / 2, cy + ch / 2 - (below ? 0.6 * em : 0),
        cellText(v, o.scale.signed), {...ink, size: Math.min(large ? 1 : 0.82, 0.62 * ch / em)});
      if (below) pen.text(cx + cw / 2, cy + ch / 2 + 0.6 * em, fitted(below, cw - 0.4 * em, {size: 0.72}),
        {...ink, size: 0.72});
      out.cells.push({id: `${o.id}/${l}/${c}`, x: cx, y: cy, w: cw - 1, h: ch - 1, label: o.label(l, c),
        link: `${o.layers[l]}/${o.columns[c]}`, act: o.act && (() => o.act(l, c))});
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
  return below + foot - y;
}

function hatch(pen, x, y, w, h, colour) {
  for (let k = 8; k < w + h; k += 8)
    pen.line([[x + Math.min(k, w), y + Math.max(0, k - w)], [x + Math.max(0, k - h), y + Math.min(k, h)]], colour, 0.6);
}
function hatchKey(pen, y, w) { // the line of a legend on hatched cells, where there are several seeds
  const em = LOOK.em, wide = 1.4 * em;
  const mark = (x, at) => {
    pen.rect(x, at - 0.5 * em, wide, em, null, LOOK.soft);
    hatch(pen, x, at - 0.5 * em, wide, em, LOOK.soft);
  };
  const words = "the 95 % interval over seeds (Student's t) includes 0";
  return SEEDS.length < 2 ? 0 : keys(pen, 0, y, w, [[words, mark, 2 * em]]);
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

function keys(pen, x, y, w, entries) { // the entries of a legend, each a mark and its words, in lines
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

const openTokens = series => (l, m) => { // shows the tokens of a cell
  const n = D.series.indexOf(series);
  if (n !== S.b) S.a = n;
  Object.assign(S, {layer: l, colour: String(m), show: n === S.b ? "b" : "a", view: "tokens", cursor: null});
  refresh();
};

function panelOf(series, m, scale) { // the heatmap of a series
  const A = series.members.length, at = (l, c) => l * A + c, seeds = ` (sd over ${m.each.length} seeds)`;
  const sd = (l, c) => Number.isNaN(m.sd[at(l, c)]) ? "" : ` ± ${pct(m.sd[at(l, c)])}${seeds}`;
  return {id: D.series.indexOf(series), title: series.label, head: series.label,
    columns: series.members, layers: series.layers, scale,
    target: series.members.indexOf(series.target), value: (l, c) => m.w[at(l, c)],
    act: D.texts.some((_, i) => isHeld(series, i)) ? openTokens(series) : null, row: (l, c) => rowOf(series, m, l, c),
    label: (l, c) =>
      `${series.label} · ${series.layers[l]} · ${memberLabel(series, c)}: ${pct(m.w[at(l, c)])}${sd(l, c)}`};
}
function differenceOf(one, two, m, change, scale) { // the heatmap of series two - series one
  const panel = panelOf(two, change, scale), A = two.members.length, label = `${two.label} − ${one.label}`;
  const sd = at => Number.isNaN(change.sd[at]) ? "" :
    ` ± ${points(change.sd[at]).slice(1)} (sd of ${change.each.length} paired seeds)`;
  return {...panel, title: "difference, points", head: label, act: null,
    hatched: (l, c) => includesZero(change, l * A + c),
    row: (l, c) => {
      const {[S.quantity]: value, ...row} = rowOf(two, change, l, c);
      return {...row, series: label, [`${S.quantity}_difference`]: value, ...boundsOf(change, l * A + c),
        checkpoints: `${row.checkpoints} less ${provenanceOf(one, m).checkpoints}`};
    },
    label: (l, c) =>
      `${label} · ${two.layers[l]} · ${memberLabel(two, c)}: ${points(change.w[l * A + c])}${sd(l * A + c)}`};
}
const REFERENCES = {uniform: "against uniform", init: "against the initialisation"};
function panelsOf(shown) { // {panels, scale, words} of several [series, mean], all on the scale that is chosen
  if (!isRelative()) {
    const scale = sharedScale(shown.map(([, m]) => m.w));
    return {panels: shown.map(([series, m]) => panelOf(series, m, scale)), scale, words: quantity()};
  }
  const changes = shown.map(([series, m]) => relative(series, m));
  const scale = scaleOf(Math.max(...changes.map(change => change ? largest(change.w.map(Math.abs)) : 0.01)), true);
  const panels = shown.map(([series, m], i) => relativePanel(panelOf(series, m, scale), series, changes[i]));
  return {panels, scale, words: `${quantity()} ${REFERENCES[S.scale]}, points`};
}
function relativePanel(panel, series, change) { // change: the result of relative()
  const A = series.members.length, words = REFERENCES[S.scale], at = (l, c) => l * A + c;
  const seeds = i => change.each.length < 2 ? "" :
    ` (${change.each.length} seeds: ${change.each.map(one => points(one.w[i])).join(", ")})`;
  const times = (l, c) => panel.value(l, c) * activeMembers(series); // of a share of all that take part
  if (!change) return {...panel, value: () => NaN, label: (l, c) => `${panel.label(l, c)}, without an initialisation`};
  return {...panel, value: (l, c) => change.w[at(l, c)], hatched: (l, c) => includesZero(change, at(l, c)),
    label: (l, c) => `${panel.label(l, c)}, ${points(change.w[at(l, c)])} ${words}` +
      `${S.scale === "uniform" ? ` (${times(l, c).toFixed(2)} × uniform)` : ""}${seeds(at(l, c))}`,
    row: (l, c) => ({...panel.row(l, c), [`against_${S.scale}`]: change.w[at(l, c)],
      ...S.scale === "uniform" ? {times_uniform: times(l, c)} : {},
      ...boundsOf(change, at(l, c))})};
}
function scaleText(shown) { // the sentence of a caption on a scale against a reference
  if (!isRelative()) return "";
  const without = shown.map(([series]) => series).filter(series => S.scale === "init" && !startOf(series));
  const names = without.map(series => series.label).join(", ");
  return `Colours and numbers are ${REFERENCES[S.scale]}, in points` +
    (S.scale === "uniform" ? " (1 / the number of members that take part)" : ", seed by seed") +
    `. ${names && `Without an initialisation: ${names}. `}`;
}
