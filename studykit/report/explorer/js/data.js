// The fusion-weight explorer. The text of tokens and names reaches the page only by textContent, fillText or esc().
// Every view draws with a pen, and lists its cells (for pointer and keyboard) and its rows (for the export).
const D = JSON.parse(document.getElementById("data").textContent);
const TRAININGS = D.training ?? []; // pages of earlier versions lack these, and losses
const COMPLETION = 1, STEPS = 255, MAX_CELLS = 4000; // a larger overview is one area instead of cells
const VIEWS = {layers: "Layers", compare: "Compare", all: "All", depth: "Depth", kinds: "Kinds", tokens: "Tokens",
  ...TRAININGS.length ? {training: "Training"} : {}};

// Data: sums by pool and kind as floats, then the weights of tokens as bytes

function bytesOf(text) { // a loop, as a function called for every byte of a large page takes a noticeable time
  const signs = atob(text), bytes = new Uint8Array(signs.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = signs.charCodeAt(i);
  return bytes;
}
const inflate = bytes => new Response(
  new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
const raw = await inflate(bytesOf(D.blob));
const FLOATS = new Float32Array(raw, 0, D.floats), BYTES = new Uint8Array(raw, 4 * D.floats);
const SEEDS = [...new Set(D.series.flatMap(series => series.records.map(r => r.seed)))];
const several = D.series.length > 1;

const MEMBERS = [...new Set(D.series.flatMap(series => series.members))];

// The reader's choices. a, b: indices into D.series; off: the series, hidden: the members and hiddenLayers: the layers
// that are not shown, by index; mine: the members in the reader's own order; kinds: those of the tokens that count, []
// for every kind; sample and band (a layer of the kinds): -1 for all; run: an index into TRAININGS; look: a validation
// of it; pinned: indices of tokens; cursor: id of a cell.
const S = {view: D.view, a: Math.max(0, D.series.length - 2), b: D.series.length - 1, seed: "mean", sample: -1,
  pool: D.tokens, kinds: [], quantity: "weight", scale: "full", by: "run", sort: "order", layer: 0, colour: "winner",
  off: [], hidden: [], hiddenLayers: [], order: "fused", mine: [], group: "1", band: -1, less: "none",
  run: 0, look: Infinity,
  show: several ? "stack" : "a", pinned: [], query: "", theme: "auto", cursor: null};

const focus = () => D.series[S.view === "layers" || S.show !== "a" ? S.b : S.a]; // the series of a view that shows one
const seriesOn = () => { // of the views that show all series; a reader who hides all gets all
  const on = D.series.filter((_, i) => !S.off.includes(i));
  return on.length ? on : D.series;
};
// the index of the first byte of a sample's weights or shares, or -1
const partOf = (record, sample) => record.samples[sample]?.[S.quantity === "weight" ? 0 : 1] ?? -1;
// the loss in nats of the token behind token t
const lossOf = (record, sample, t) => D.nats * (BYTES[record.samples[sample][2] + t] / STEPS) ** 2;
const isHeld = (series, sample) => series.records.some(r => partOf(r, sample) >= 0);
const heldSamples = () => D.texts.map((_, i) => i).filter(i => isHeld(focus(), i));
const kindsOn = () => S.kinds.length ? S.kinds : D.kinds.map((_, k) => k);
const kindsText = () => S.kinds.map(k => D.kinds[k]).join(", ") || "every";
const chosen = series => series.records.filter(r => S.seed === "mean" || r.seed === S.seed);
function withKinds(kinds, compute) { // what a function gives if these kinds were chosen
  const before = S.kinds;
  S.kinds = kinds;
  try { return compute(); } finally { S.kinds = before; }
}
const counted = (text, t) => D.pools[S.pool].includes(+text.marks[t]) &&
  (!S.kinds.length || S.kinds.includes(+text.kinds[t]));
const activeMembers = series => series.members.length - (series.mask === "exclude" ? series.masked.length : 0);
const sameShape = (one, two) =>
  String(one.members) === String(two.members) && String(one.layers) === String(two.layers);

const cachedMeans = new WeakMap(); // record -> means by the choices; a view needs them at every drawing
// {n, w: layers x members, e: bits per layer, record} of a record, or null
function recordMean(series, record, sample = S.sample) {
  if (!cachedMeans.has(record)) cachedMeans.set(record, new Map());
  const means = cachedMeans.get(record), key = [sample, S.pool, S.kinds.join("+"), S.quantity].join();
  if (!means.has(key)) means.set(key, computeMean(series, record, sample));
  return means.get(key);
}
function computeMean(series, record, sample) {
  const L = series.layers.length, A = series.members.length, w = new Float64Array(L * A), e = new Float64Array(L);
  let n = 0;
  if (sample < 0) {
    for (const p of D.pools[S.pool]) for (const k of kindsOn()) {
      const at = p * D.kinds.length + k, from = record[S.quantity] + at * L * A;
      n += record.counts[p][k];
      for (let i = 0; i < L * A; i++) w[i] += FLOATS[from + i];
      for (let l = 0; l < L; l++) e[l] += FLOATS[record.entropy + at * L + l];
    }
  } else {
    const from = partOf(record, sample), weights = record.samples[sample]?.[0];
    if (from < 0) return null;
    const text = D.texts[sample], T = text.tokens.length;
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

const average = values => values.reduce((sum, v) => sum + v, 0) / values.length;
function spread(values) { // standard deviation (n - 1)
  const centre = average(values), squares = values.reduce((sum, v) => sum + (v - centre) ** 2, 0);
  return values.length < 2 ? NaN : Math.sqrt(squares / (values.length - 1));
}
function meanOver(each) { // the mean of several results of recordMean, its sd and its records; null for none
  if (!each.length) return null;
  const all = (pick, of) => each[0][pick].map((_, i) => of(each.map(one => one[pick][i])));
  return {each, n: each[0].n, records: each.map(one => one.record),
    w: all("w", average), e: all("e", average), sd: all("w", spread), esd: all("e", spread)};
}
const mean = series => meanOver(chosen(series).map(r => recordMean(series, r)).filter(Boolean));

function paired(one, two) { // means over the seeds that both series have, if there are any, and their difference
  const both = [one, two].map(series => mean(series));
  if (both.includes(null)) return null;
  const common = both[0].records.map(r => r.seed).filter(seed => both[1].records.some(r => r.seed === seed));
  const [m, n] = !common.length ? both :
    both.map(of => meanOver(common.map(seed => of.each.find(each => each.record.seed === seed))));
  const fewer = m.each.length < both[0].each.length || n.each.length < both[1].each.length;
  if (!sameShape(one, two)) return {m, n, fewer, change: null};
  const change = n.w.map((v, i) => v - m.w[i]);
  const each = common.map((_, k) => ({...n.each[k], w: n.each[k].w.map((v, i) => v - m.each[k].w[i])}));
  const sd = n.w.map((_, i) => spread(each.map(one => one.w[i])));
  return {m, n, fewer, change: {...n, w: change, sd, each}};
}

// Scales against a reference

const isRelative = () => S.scale === "uniform" || S.scale === "init";
// what the states of one method share in their labels
const group = label => label.split(" · ").slice(0, -1).join(" · ");
const startOf = series => D.series.find(one => one.phase === "init" && one !== series && sameShape(one, series) &&
  group(one.label) === group(series.label));
function relative(series, m) { // a mean less the reference of the scale, by seed; null without a reference
  if (S.scale === "init") return startOf(series) ? paired(startOf(series), series)?.change ?? null : null;
  const A = series.members.length, out = series.mask === "exclude" ? series.masked : [];
  const reference = series.members.map(name => out.includes(name) ? 0 : 1 / activeMembers(series));
  const less = one => ({...one, w: one.w.map((v, i) => v - reference[i % A])});
  return {...less(m), each: m.each.map(less)};
}
function interval(values) { // the 95 % interval of the mean of seeds, or null for one seed
  if (values.length < 2) return null;
  const half = D.student[values.length - 2] * spread(values) / Math.sqrt(values.length), middle = average(values);
  return [middle - half, middle + half];
}
const ofSeeds = ({each}, i) => interval(each.map(one => one.w[i]));
function includesZero(change, i) { // whether other seeds could turn the sign of a difference
  const [low, high] = ofSeeds(change, i) ?? [0, 0];
  return low < 0 && high > 0;
}

function faults() { // one sentence per record whose weights cannot be right
  const sentences = [];
  for (const series of D.series) for (const record of series.records) {
    const sentence = fault(series, record), seed = record.seed === null ? "" : `, seed ${record.seed}`;
    if (sentence) sentences.push(`${series.label}${seed}: ${sentence}`);
  }
  return sentences;
}
function fault(series, record) { // the first fault of a record, or ""
  const L = series.layers.length, A = series.members.length, size = L * A;
  if (record.error > D.tolerance)
    return `the weights of a token differ from a sum of 1 by ${record.error.toPrecision(2)}`;
  const masked = series.masked.map(name => series.members.indexOf(name));
  for (const [p, kinds] of record.counts.entries()) for (const [k, n] of kinds.entries()) {
    const from = record.weight + (p * D.kinds.length + k) * size;
    for (let l = 0; l < L && n; l++) {
      const row = FLOATS.subarray(from + l * A, from + (l + 1) * A), sum = average(row) * A / n;
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
