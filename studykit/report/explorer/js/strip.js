// Drawing tokens: the functions take tracks, the results of tokensOf, to which the view adds colour(l, t) and column.
// The tracks of a view are of the same tokens.

const largestOfTrack = {}; // by track: {key, most}; a change of the layer does not change it
function addColours(tracks) { // adds column (the member that colours the tokens, or -1 for the largest), scale, colour
  for (const track of tracks) {
    const {show, series, A, most, signed} = track, member = S.colour === "winner" || +S.colour >= A ? -1 : +S.colour;
    track.column = member < 0 && signed ? Math.max(series.members.indexOf(series.target), 0) : member;
    track.scaled = signed || S.scale === "most" && track.column >= 0;
    const key = `${shownKey()} ${track.column}`;
    if (track.scaled && largestOfTrack[show]?.key !== key) largestOfTrack[show] = {key, most: most(track.column)};
  }
  const largestOf = ({signed}) => Math.max(...tracks.filter(track => track.signed === signed && track.scaled)
    .map(({show}) => largestOfTrack[show].most)); // A and B have one scale
  for (const track of tracks) {
    const {A, of, winner, signed, column} = track;
    const scale = track.scaled ? scaleOf(largestOf(track), signed) : scaleOf(1);
    const ofWinner = (l, t) => {
      const best = winner(l, t), strength = A < 2 ? 1 : clamp((of(l, t, best) - 1 / A) / (1 - 1 / A), 0, 1);
      return mix(LOOK.paper, rgb(memberColour(best)), 0.2 + 0.75 * strength);
    };
    track.scale = scale;
    track.colour = column >= 0 ? (l, t) => scale.colour(of(l, t, column)) : ofWinner;
  }
}

function columnsOfTokens({series, T}, w) { // where the tokens stand in the pictures of all layers
  const left = Math.max(...series.layers.map(name => widthOf(name, {size: 0.75}))) + 0.5 * LOOK.em;
  const mw = Math.min(w - left, T * 1.2 * LOOK.em);
  return {left, mw, px: mw / T};
}
function overview(pen, out, y, w, track, layer, tall) { // all layers, with a pixel per token and layer
  const {show, series, text, T, L, colour} = track, em = LOOK.em, {left, mw, px} = columnsOfTokens(track, w);
  const bh = clamp(tall / L, 2, 1.1 * em);
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
function lossBars(pen, out, y, w, tracks, tall) { // the loss behind each token, below the pictures of all layers
  const em = LOOK.em, [{text, T}] = tracks, {left, mw, px} = columnsOfTokens(tracks[0], w);
  const shown = tracks.filter(track => !track.signed), small = {size: 0.75, fill: LOOK.soft};
  const all = shown.map(track => Array.from({length: T}, (_, t) => track.loss(t)));
  if (pen === SILENT) return tall;
  const top = largest([0.5, ...all.flatMap(of => of.filter((_, t) => counted(text, t)))]); // others may be far above
  const bottom = y + tall, wide = Math.max(px / shown.length - 0.4, 0.6);
  pen.text(0, y + 0.4 * em, fitted(`loss of the next token, 0 to ${top.toFixed(1)} nats` +
    (shown.length > 1 ? " (left A, right B)" : "") + "; pale: not counted by the filters", w, small), small);
  pen.line([[left, bottom], [left + mw, bottom]], LOOK.line);
  const words = t => `${tokenLabel(text, t)} · loss of the next token: ` +
    shown.map((track, k) => (shown.length > 1 ? `${LETTERS[track.show]} ` : "") + `${all[k][t].toFixed(2)} nats`)
      .join(", ");
  for (let t = 0; t < T; t++) shown.forEach((track, k) => {
    const h = Math.min(all[k][t] / top, 1) * (tall - 1.1 * em), fill = k ? LOOK.accent : LOOK.soft;
    pen.rect(left + t * px + k * px / shown.length, bottom - h, wide, h, counted(text, t) ? fill : LOOK.line);
  });
  out.areas.push({x: left, y, w: mw, h: tall, at: dx => {
    const t = clamp(Math.floor(dx / px), 0, T - 1);
    return {id: `loss/${t}`, label: words(t), link: `t${t}`, act: pin(S.layer, t)};
  }});
  const others = out.linked;
  out.linked = link => [...others(link), ...link[0] === "t" && +link.slice(1) < T ?
    [{x: left + link.slice(1) * px - 1, y, w: px, h: tall}] : []];
  return tall;
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
  const describe = ({show, series, of, A, signed, loss}, t) => `${tokenLabel(text, t)} (${partName(text, t)}, ` +
    `${D.kinds[text.kinds[t]]}) · ${tracks.length > 1 ? `${LETTERS[show]} · ` : ""}${series.layers[layer]}: ` +
    Array.from({length: A}, (_, m) => `${series.members[m]} ${pct(of(layer, t, m), 1, signed)}`).join(", ") +
    (D.nats && t + 1 < text.tokens.length ? ` · loss of the next token ${signed && loss(t) > 0 ? "+" : ""}` +
      `${loss(t).toFixed(2)} nats` : "");
  const letters = () => tracks.forEach(({show}, k) => {
    if (left) pen.text(left - 0.5 * em, y + (k + 0.42) * tall, LETTERS[show], small);
  });
  let x = left;
  letters();
  text.tokens.forEach((token, t) => {
    const sign = visible(token), room = w - left - em;
    const words = cachedWidth(sign, style) <= room ? sign : fitted(sign, room, style); // measured once, not at each layer
    const wide = cachedWidth(words, style) + 0.34 * em;
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
  const kinds = [...new Set([...pinned].sort((s, t) => s - t).map(t => D.kinds[text.kinds[t]]))].join(", ");
  const title = `${many ? `mean of ${pinned.length} tokens` : tokenLabel(text, pinned[0])} (${kinds})`;
  const ofAll = series.members.map((name, m) => [name, average(series.layers.map((_, l) => at(l, m)))]);
  const first = ofAll.sort(([, one], [, two]) => Math.abs(two) - Math.abs(one)).slice(0, 3);
  const word = signed ? v => points(v).replace(" points", "") : v => pct(v, 0);
  const subtitle = `mean${signed ? ", points" : ""}: ${first.map(([name, v]) => `${name} ${word(v)}`).join(", ")}`;
  return heatmap(pen, out, x, y, w, arranged({head: `${label} · ${pinnedText(text)}`, id: `pinned-${show}`,
    columns: series.members, scale, room, subtitle,
    title: S.show === "stack" ? `${LETTERS[show]}: ${title}` : title,
    target: series.members.indexOf(series.target), layers: series.layers, marked: layer,
    value: (l, m) => values[l * A + m], act: l => { S.layer = l; refresh(true); },
    label: (l, m) => `${label} · ${pinnedText(text)} · ${series.layers[l]} · ${series.members[m]}: ` +
      pct(values[l * A + m], 1, signed)}, series));
}
function tokenRows(out, {series, text, T, L, of, label, checkpoint, signed, loss}, layer) {
  const name = signed ? `${S.quantity}_difference` : S.quantity, pinned = new Set(S.pinned);
  const add = (l, t) => series.members.forEach((member, m) => out.rows.push({series: label, sample: text.id,
    layer: series.layers[l], position: t + 1, token: text.tokens[t], part: partName(text, t),
    kind: D.kinds[text.kinds[t]], counted: counted(text, t), pinned: pinned.has(t), member,
    [name]: +of(l, t, m).toFixed(5), next_token_loss: +loss(t).toFixed(4), checkpoint}));
  for (let t = 0; t < T; t++) add(layer, t);
  for (const t of pinnedIn(T)) for (let l = 0; l < L; l++) if (l !== layer) add(l, t); // the panel beside the text
}
