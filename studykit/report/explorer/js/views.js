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
    (series.placement === "output" ? "" : `; fused at ${series.placement}`) +
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
