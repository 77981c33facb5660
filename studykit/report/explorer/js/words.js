// Words: numbers as text, and the sentences of captions

function pct(v, digits = 1, sign = false) {
  return Number.isNaN(v) ? "–" : `${sign && v > 0 ? "+" : ""}${(100 * v).toFixed(digits)} %`;
}
const points = v => pct(v, 1, true).replace(" %", " points");
function cellText(v, signed) {
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
const memberLabel = (series, m) => series.members[m] + (series.members[m] === series.target ? " (target)" : "");
const capital = text => text[0].toUpperCase() + text.slice(1);

function seedsText(series, m) {
  if (m.records.every(r => r.seed === null)) return "no seed";
  if (m.records.length === 1) return `seed ${m.records[0].seed}`;
  const all = series.records.length;
  return `mean of ${m.records.length}${m.records.length < all ? ` of ${all}` : ""} seeds`;
}
function provenanceParts(series, m) { // the tokens and seeds that the numbers of a series come from, and the runs
  const kind = S.kinds.length ? ` of kind ${S.kinds.map(k => D.kinds[k]).join(" or ")}` : "";
  const pool = S.pool === "both" ? "prompt and completion" : S.pool;
  const of = S.sample < 0 ? `n = ${plural(series.n, "sample")}` : `sample ${D.texts[S.sample].id}`;
  const runs = m.records.map(r => r.checkpoint || "unnamed"), base = m.records[0].base;
  const names = runs.length > 3 ? `${runs[0]} and ${runs.length - 1} more` : runs.join(", ");
  return [`${of}, ${number(m.n)} ${pool} tokens${kind}, padding excluded; ${seedsText(series, m)}`,
    `checkpoint ${names}${base ? ` on base ${base}` : ""}` +
    (series.placement === "output" ? "" : `; fused at ${series.placement}`) +
    (series.masked.length ? `; ${series.masked.join(", ")} masked (${series.mask})` : "")];
}
function provenanceText(out, shown) { // of several [series, mean]: what all share; the rest goes into the fold below
  const parts = shown.map(([series, m]) => provenanceParts(series, m)), [tokens] = parts[0];
  const rounded = S.sample < 0 ? "" : " Of one sample, rounded weights are averaged: exact to ± 0.4 points.";
  const shared = parts.every(part => part[0] === tokens);
  out.stands = parts.map((part, i) => `${shown[i][0].label}: ${shared ? part[1] : part.join("; ")}.`);
  if (!shared) return `The series differ in samples, tokens or seeds, which the fold below names.${rounded}`;
  return `${shown.length > 1 ? "Each" : shown[0][0].label}: ${tokens}.${rounded}`;
}
const wholeCaption = out => [out.caption, ...out.stands].join(" ");
function absenceReason(series) { // the reason why a series has no mean
  if (!chosen(series).length) return `seed ${S.seed} is not recorded`;
  if (S.sample >= 0 && !chosen(series).some(r => partOf(r, S.sample) >= 0)) {
    const shares = S.quantity === "share" && chosen(series).some(r => r.samples[S.sample]);
    return `sample ${D.texts[S.sample].id} is not kept token by token${shares ? " with its norm-weighted shares" : ""}`;
  }
  return "no token is of these kinds";
}
function omittedText() { // the series that a view of all series cannot show, and the reason
  const without = seriesOn().filter(series => !mean(series))
    .map(series => `${series.label} (${absenceReason(series)})`);
  return without.length ? ` Not shown: ${without.join(", ")}.` : "";
}
function drawMessage(pen, out, message) { // instead of a view
  out.caption = `${capital(message)}.`;
  pen.text(0, LOOK.em, out.caption, {fill: LOOK.soft});
  return 3 * LOOK.em;
}

// Rows of the export

const provenanceOf = (series, m) => ({target: series.target, sample: S.sample < 0 ? "all" : D.texts[S.sample].id,
  samples: S.sample < 0 ? series.n : 1, pool: S.pool, kind: kindsText(), tokens: m.n,
  seeds: m.records.map(r => r.seed ?? "").join(" "), checkpoints: m.records.map(r => r.checkpoint).join(" ")});
const asBounds = ([low = null, high = null]) => ({low_over_seeds: low, high_over_seeds: high});
const boundsOf = (change, i) => asBounds(ofSeeds(change, i) ?? []); // the interval over seeds of a difference
const orNull = v => Number.isNaN(v) ? null : v;
function rowOf(series, m, l, c) {
  const at = l * series.members.length + c;
  return {series: series.label, layer: series.layers[l], member: series.members[c], [S.quantity]: m.w[at],
    sd_over_seeds: orNull(m.sd[at]), ...provenanceOf(series, m)};
}

