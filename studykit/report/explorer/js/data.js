// The fusion-weight explorer. Text of tokens and names reaches the page through textContent, fillText or esc() alone.
// Every view draws with a pen and lists its cells and rows: one pen paints the canvas, one writes SVG, rows are saved.
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
