// Tokens: the functions that draw them take tracks, the results of tokensOf, to which the view adds colour(l, t) and
// column. The tracks of a view are of the same tokens.

function tokenTracks() { // A, B and their difference if there is one, or the one that is chosen
  if (S.show !== "stack") return [tokensOf(S.show)];
  const both = S.a === S.b ? [tokensOf("b", true)] : ["a", "b"].map(show => tokensOf(show, true));
  const lacking = both.findLast(track => track.why);
  if (lacking || both.length < 2) return [lacking ?? both[0]];
  const change = tokensOf("diff");
  return change.why ? both : [...both, change];
}
function tokensOf(show, stacked = false) { // the tokens, with their weights as a function of layer, token and member;
  // or {why} there are none. stacked: of a sample and seed that A and B both have
  const shown = show === "a" ? D.series[S.a] : D.series[S.b], signed = show === "diff";
  const pair = signed || stacked ? [D.series[S.a], D.series[S.b]] : [shown];
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
  return {show, series: shown, sample, text, T, L, A, of, winner, most, signed,
    label: signed ? `${two.name} − ${one.name}` : two.name,
    checkpoint: [two, one].filter(Boolean).map(each => each.record.checkpoint || "unnamed").join(" less ")};
}
const partName = (text, t) => ["prompt", "completion", "last"][text.marks[t]];
const tokenLabel = (text, t) => `token ${t + 1} “${visible(text.tokens[t])}”`;
const pinnedIn = T => S.pinned.filter(t => t < T);
const pin = (l, t) => event => { // one token; with Ctrl or Command one more or less, with Shift a span
  S.layer = l;
  const last = S.pinned.at(-1) ?? t, [from, to] = [Math.min(last, t), Math.max(last, t)];
  if (event?.shiftKey) {
    const span = Array.from({length: to - from + 1}, (_, i) => from + i);
    S.pinned = [...new Set([...S.pinned, ...span])].filter(i => i !== last).concat(last);
  } else if (event?.ctrlKey || event?.metaKey)
    S.pinned = S.pinned.includes(t) ? S.pinned.filter(i => i !== t) : [...S.pinned, t];
  else S.pinned = [t];
  refresh(true);
};
const pinnedText = text => {
  const pinned = pinnedIn(text.tokens.length);
  return pinned.length === 1 ? `token ${pinned[0] + 1}` : `${pinned.length} tokens`;
};

function overview(pen, out, y, w, {show, series, text, T, L, colour}, layer, tall) { // all layers, with a pixel per
  // token and layer
  const em = LOOK.em, left = Math.max(...series.layers.map(name => widthOf(name, {size: 0.75}))) + 0.5 * em;
  const bh = clamp(tall / L, 2, 1.1 * em), mw = Math.min(w - left, T * 1.2 * em), px = mw / T;
  pen.image(left, y, mw, L * bh, pen === SILENT ? null : painted(show, T, L, colour));
  for (let l = 0; l < L; l += Math.ceil(em / bh)) pen.text(left - 0.3 * em, y + (L - 0.5 - l) * bh, series.layers[l],
    {align: "right", size: 0.75, fill: LOOK.soft});
  pen.rect(left - 1, y + (L - 1 - layer) * bh - 1, mw + 2, bh + 2, null, LOOK.ink, 1.5);
  for (const t of pinnedIn(T)) pen.rect(left + t * px - 1, y - 1, px + 2, L * bh + 2, null, LOOK.accent, 1.5);
  const cell = (l, t) => ({id: `${show}${l}/${t}`, label: `${series.layers[l]} · ${tokenLabel(text, t)}`,
    link: `t${t}`, act: pin(l, t)});
  const others = out.linked;
  out.linked = link => [...others(link), ...link[0] === "t" ? // the whole column of a token
    [{x: left + link.slice(1) * px - 1, y: y - 1, w: px, h: L * bh}] : []];
  if (L * T <= MAX_CELLS) for (let l = L - 1; l >= 0; l--) for (let t = 0; t < T; t++)
    out.cells.push({...cell(l, t), column: true, x: left + t * px, y: y + (L - 1 - l) * bh, w: px, h: bh});
  else out.areas.push({x: left, y, w: mw, h: L * bh, at: (dx, dy) =>
    cell(clamp(L - 1 - Math.floor(dy / bh), 0, L - 1), clamp(Math.floor(dx / px), 0, T - 1))});
  return L * bh;
}
const pictures = {}; // of all layers, by track; one is painted again only if more than the layer or the tokens change
const shownKey = () => JSON.stringify([S.a, S.b, S.sample, S.seed, S.show, S.quantity, S.scale, S.colour, LOOK.dark]);
function painted(show, T, L, colour) {
  const key = shownKey();
  if (pictures[show]?.key === key) return pictures[show].bitmap;
  const bitmap = document.createElement("canvas");
  bitmap.width = T; bitmap.height = L;
  const context = bitmap.getContext("2d"), pixels = context.createImageData(T, L);
  for (let l = 0; l < L; l++) for (let t = 0; t < T; t++)
    pixels.data.set([...colour(l, t).map(Math.round), 255], 4 * ((L - 1 - l) * T + t));
  context.putImageData(pixels, 0, 0);
  pictures[show] = {key, bitmap};
  return bitmap;
}

const LETTERS = {a: "A", b: "B", diff: "B − A"};
function strip(pen, out, y, w, tracks, layer, clip) { // the text; each of its lines once per track, one below the other
  const em = LOOK.em, style = {mono: true, size: 0.86}, [{sample, text}] = tracks;
  const winners = tracks.some(track => track.column < 0), tall = (winners ? 2.05 : 1.6) * em, hits = matches(sample);
  const left = tracks.length > 1 ? 3 * em : 0, step = tracks.length * tall + (tracks.length > 1 ? 0.5 * em : 0);
  const from = y, pinned = new Set(S.pinned), small = {size: 0.8, fill: LOOK.soft, align: "right", bold: true};
  const describe = ({show, series, of, A, signed}, t) => `${tokenLabel(text, t)} (${partName(text, t)}, ` +
    `${D.kinds[text.kinds[t]]}) · ${tracks.length > 1 ? `${LETTERS[show]} · ` : ""}${series.layers[layer]}: ` +
    Array.from({length: A}, (_, m) => `${series.members[m]} ${pct(of(layer, t, m), 1, signed)}`).join(", ");
  const letters = () => tracks.forEach(({show}, k) => {
    if (left) pen.text(left - 0.5 * em, y + (k + 0.42) * tall, LETTERS[show], small);
  });
  let x = left;
  letters();
  text.tokens.forEach((token, t) => {
    const words = fitted(visible(token), w - left - em, style), wide = cachedWidth(words, style) + 0.34 * em;
    if (x > left && x + wide > w) { x = left; y += step; letters(); }
    tracks.forEach((track, k) => {
      const top = y + k * tall;
      if (top + tall >= clip[0] && top <= clip[1]) drawToken(track, k, t, words, x, top, wide);
      out.cells.push({id: k ? `t${t}/${k}` : `t${t}`, x, y: top, w: wide - 1.5, h: tall - 3, link: `t${t}`,
        act: pin(layer, t), get label() { return describe(track, t); }});
    });
    x += wide;
  });
  return y + step - from;

  function drawToken({colour, column, winner}, k, t, words, x, y, wide) {
    const on = counted(text, t), fill = colour(layer, t), ink = on ? inkOn(fill) : LOOK.soft, cx = x + wide / 2 - 0.75;
    const frame = (colour, by) => pen.rect(x - 0.5, y - 0.5, wide - 0.5, tall - 2, null, colour, by);
    pen.rect(x, y, wide - 1.5, tall - 3, on ? css(fill) : null, on ? null : LOOK.line);
    pen.text(cx, y + (column < 0 ? 0.36 : 0.46) * tall, words, {...style, align: "center", fill: ink});
    if (column < 0 && on) pen.text(cx, y + 0.75 * tall, String(winner(layer, t) + 1),
      {size: 0.6, align: "center", fill: ink});
    if (+text.marks[t] === COMPLETION)
      pen.line([[x + 1, y + tall - 2], [x + wide - 2.5, y + tall - 2]], LOOK.ink, 1.4);
    if (hits.has(t)) frame(LOOK.accent, 2.5);
    if (pinned.has(t)) frame(LOOK.ink, 2.5);
  }
}
const widths = new Map();
function cachedWidth(text, style) {
  const key = LOOK.em + text;
  if (!widths.has(key)) widths.set(key, widthOf(text, style));
  return widths.get(key);
}

function tokenPanel(pen, out, x, y, w, {show, series, text, T, of, label, signed}, layer, room) { // the mean of the
  // pinned tokens in all layers
  const A = series.members.length, pinned = pinnedIn(T), many = pinned.length > 1;
  const at = (l, m) => average(pinned.map(t => of(l, t, m)));
  const values = series.layers.flatMap((_, l) => series.members.map((_, m) => at(l, m)));
  const scale = scaleOf(signed ? largest(values.map(Math.abs)) : 1, signed);
  const title = many ? `mean of ${pinned.length} tokens` : tokenLabel(text, pinned[0]);
  return heatmap(pen, out, x, y, w, {id: `pinned-${show}`, columns: series.members, scale, room,
    title: S.show === "stack" ? `${LETTERS[show]}: ${title}` : title,
    target: series.members.indexOf(series.target), layers: series.layers, marked: layer,
    value: (l, m) => values[l * A + m], act: l => { S.layer = l; refresh(true); },
    label: (l, m) => `${label} · ${pinnedText(text)} · ${series.layers[l]} · ${series.members[m]}: ` +
      pct(values[l * A + m], 1, signed)});
}
function tokenRows(out, {series, text, T, L, of, label, checkpoint, signed}, layer) {
  const name = signed ? `${S.quantity}_difference` : S.quantity, pinned = new Set(S.pinned);
  const add = (l, t) => series.members.forEach((member, m) => out.rows.push({series: label, sample: text.id,
    layer: series.layers[l], position: t + 1, token: text.tokens[t], part: partName(text, t),
    kind: D.kinds[text.kinds[t]], counted: counted(text, t), pinned: pinned.has(t), member,
    [name]: +of(l, t, m).toFixed(5), checkpoint}));
  for (let t = 0; t < T; t++) add(layer, t);
  for (const t of pinnedIn(T)) for (let l = 0; l < L; l++) if (l !== layer) add(l, t); // the panel beside the text
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
