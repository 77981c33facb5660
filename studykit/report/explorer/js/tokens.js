// Tokens: the functions that draw them take the result of tokensOf, to which the view adds colour(l, t), column, layer

function tokensOf() { // the shown tokens, with their weights as a function of layer, token and member; or {why} there
  // are none
  const shown = S.show === "b" || S.show === "diff" ? D.series[S.b] : D.series[S.a], signed = S.show === "diff";
  const pair = signed ? [D.series[S.a], shown] : [shown];
  const inAll = i => pair.every(series => chosen(series).some(r => partOf(r, i) >= 0));
  const sample = S.sample >= 0 ? S.sample : heldSamples().find(inAll) ?? heldSamples()[0];
  if (sample === undefined) return {why: `no sample of ${shown.label} is kept token by token` +
    (S.quantity === "share" ? " with its norm-weighted shares" : "")};
  const text = D.texts[sample], T = text.tokens.length;
  const recordsOf = series => chosen(series).filter(r => partOf(r, sample) >= 0);
  const inBoth = record => pair.every(series => recordsOf(series).some(r => r.seed === record.seed));
  const read = series => { // the record of the first seed that all series have, else of their own first one
    const record = recordsOf(series).find(inBoth) || recordsOf(series)[0], A = series.members.length;
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
  if (signed && !sameShape(D.series[S.a], shown))
    return {why: "there is no difference, as A and B differ in members or layers"};
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
const partName = (text, t) => ["prompt", "completion", "last"][text.marks[t]];
const tokenLabel = (text, t) => `token ${t + 1} “${visible(text.tokens[t])}”`;
const go = (l, t) => () => { S.layer = l; S.token = t; refresh(true); };

function overview(pen, out, y, w, {series, text, T, L, colour, layer}) { // all layers, with a pixel per token and layer
  const em = LOOK.em, left = Math.max(...series.layers.map(name => widthOf(name, {size: 0.75}))) + 0.5 * em;
  const bh = clamp(9 * em / L, 2, 1.1 * em), mw = Math.min(w - left, T * 1.2 * em), px = mw / T;
  pen.image(left, y, mw, L * bh, pen === SILENT ? null : painted(T, L, colour));
  for (let l = 0; l < L; l += Math.ceil(em / bh)) pen.text(left - 0.3 * em, y + (L - 0.5 - l) * bh, series.layers[l],
    {align: "right", size: 0.75, fill: LOOK.soft});
  pen.rect(left - 1, y + (L - 1 - layer) * bh - 1, mw + 2, bh + 2, null, LOOK.ink, 1.5);
  if (S.token >= 0 && S.token < T) pen.rect(left + S.token * px - 1, y - 1, px + 2, L * bh + 2, null, LOOK.accent, 1.5);
  const cell = (l, t) => ({id: `o${l}/${t}`, label: `${series.layers[l]} · ${tokenLabel(text, t)}`, act: go(l, t)});
  if (L * T <= MAX_CELLS) for (let l = L - 1; l >= 0; l--) for (let t = 0; t < T; t++)
    out.cells.push({...cell(l, t), x: left + t * px, y: y + (L - 1 - l) * bh, w: px, h: bh});
  else out.areas.push({x: left, y, w: mw, h: L * bh, at: (dx, dy) =>
    cell(clamp(L - 1 - Math.floor(dy / bh), 0, L - 1), clamp(Math.floor(dx / px), 0, T - 1))});
  return L * bh;
}
let picture = {}; // of all layers; it is painted again only if more than the layer or the token changes
function painted(T, L, colour) {
  const {a, b, sample, seed, show, quantity, scale, colour: by} = S;
  const key = JSON.stringify([a, b, sample, seed, show, quantity, scale, by, LOOK.dark]);
  if (picture.key === key) return picture.bitmap;
  const bitmap = document.createElement("canvas");
  bitmap.width = T; bitmap.height = L;
  const context = bitmap.getContext("2d"), pixels = context.createImageData(T, L);
  for (let l = 0; l < L; l++) for (let t = 0; t < T; t++)
    pixels.data.set([...colour(l, t).map(Math.round), 255], 4 * ((L - 1 - l) * T + t));
  context.putImageData(pixels, 0, 0);
  picture = {key, bitmap};
  return bitmap;
}

function strip(pen, out, y, w, {series, sample, text, of, A, winner, signed, colour, column, layer}, clip) {
  const em = LOOK.em, style = {mono: true, size: 0.86}, winners = column < 0, tall = (winners ? 2.05 : 1.6) * em;
  const hits = matches(sample), from = y;
  const all = t => Array.from({length: A}, (_, m) => `${series.members[m]} ${pct(of(layer, t, m), 1, signed)}`);
  const describe = t => `${tokenLabel(text, t)} (${partName(text, t)}, ${D.kinds[text.kinds[t]]}) · ` +
    `${series.layers[layer]}: ${all(t).join(", ")}`;
  let x = 0;
  text.tokens.forEach((token, t) => {
    const words = fitted(visible(token), w - em, style), wide = cachedWidth(words, style) + 0.34 * em;
    if (x && x + wide > w) { x = 0; y += tall; }
    if (y + tall >= clip[0] && y <= clip[1]) {
      const on = counted(text, t), fill = colour(layer, t), ink = on ? inkOn(fill) : LOOK.soft;
      const cx = x + wide / 2 - 0.75;
      const frame = (colour, by) => pen.rect(x - 0.5, y - 0.5, wide - 0.5, tall - 2, null, colour, by);
      pen.rect(x, y, wide - 1.5, tall - 3, on ? css(fill) : null, on ? null : LOOK.line);
      pen.text(cx, y + (winners ? 0.36 : 0.46) * tall, words, {...style, align: "center", fill: ink});
      if (winners && on) pen.text(cx, y + 0.75 * tall, String(winner(layer, t) + 1),
        {size: 0.6, align: "center", fill: ink});
      if (+text.marks[t] === COMPLETION)
        pen.line([[x + 1, y + tall - 2], [x + wide - 2.5, y + tall - 2]], LOOK.ink, 1.4);
      if (hits.has(t)) frame(LOOK.accent, 2.5);
      if (t === S.token) frame(LOOK.ink, 2.5);
    }
    out.cells.push({id: `t${t}`, x, y, w: wide - 1.5, h: tall - 3, act: go(layer, t),
      get label() { return describe(t); }});
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
  return heatmap(pen, out, x, y, w, {id: "token", title: tokenLabel(text, S.token), columns: series.members, scale,
    room, target: series.members.indexOf(series.target), layers: series.layers, marked: layer,
    value: (l, m) => values[l * A + m], act: l => { S.layer = l; refresh(true); },
    label: (l, m) => `${label} · token ${S.token + 1} · ${series.layers[l]} · ${series.members[m]}: ` +
      pct(at(l, m), 1, signed)});
}
function tokenRows(out, {series, text, T, L, of, label, checkpoint, signed, layer}, detail) {
  const name = signed ? `${S.quantity}_difference` : S.quantity;
  const add = (l, t) => series.members.forEach((member, m) => out.rows.push({series: label, sample: text.id,
    layer: series.layers[l], position: t + 1, token: text.tokens[t], part: partName(text, t),
    kind: D.kinds[text.kinds[t]], counted: counted(text, t), member, [name]: +of(l, t, m).toFixed(5), checkpoint}));
  for (let t = 0; t < T; t++) add(layer, t);
  if (detail) for (let l = 0; l < L; l++) if (l !== layer) add(l, S.token); // the panel of one token
}

let search = {}; // the hits of the last query by sample
function matches(sample) { // the tokens of a sample that contain the query or a part of it
  if (search.query !== S.query) search = {query: S.query, hits: new Map()};
  if (!S.query) return new Set();
  if (!search.hits.has(sample)) {
    const {tokens} = D.texts[sample], hits = new Set();
    const wanted = new RegExp(S.query.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "giu");
    let t = 0, end = tokens[0]?.length ?? 0;
    for (const hit of tokens.join("").matchAll(wanted)) {
      while (end <= hit.index) end += tokens[++t].length;
      hits.add(t);
      while (end < hit.index + hit[0].length) { end += tokens[++t].length; hits.add(t); }
    }
    search.hits.set(sample, hits);
  }
  return search.hits.get(sample);
}
function matchesText(sample) {
  if (!S.query) return "";
  const others = heldSamples().filter(i => i !== sample && matches(i).size).map(i => i + 1);
  return `${plural(matches(sample).size, "token")} match the search` +
    (others.length ? `, and some in sample${others.length > 1 ? "s" : ""} ${others.join(", ")}. ` : ". ");
}
