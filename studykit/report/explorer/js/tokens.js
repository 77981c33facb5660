// Tokens: tracks of weights on the tokens of one sample, which tokens are pinned, and the search in them

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
    return {record, name: series.label + seed, value: (l, t, m) => BYTES[from + (l * T + t) * A + m] / STEPS,
      loss: t => lossOf(record, sample, t)};
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
  const loss = t => two.loss(t) - (one?.loss(t) ?? 0);
  return {show, series: shown, sample, text, T, L, A, of, winner, most, signed, loss,
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
