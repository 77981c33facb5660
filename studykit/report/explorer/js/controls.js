// Controls

function select(key, label, options, parse = String, value = S[key]) { // options: pairs of a value and its words
  const box = make("select", {id: `choose-${key}`,
    onchange: event => { S[key] = parse(event.target.value); refresh(); }});
  box.append(...options.map(([value, words]) => make("option", {value}, words)));
  box.value = String(value);
  return make("label", {}, make("span", {}, label), box);
}
function buildControls() {
  if (+S.colour >= focus().members.length) S.colour = "winner"; // another series may have fewer members
  const series = focus(), view = S.view, runs = D.series.map((s, i) => [i, s.label]), parts = [];
  const ofKind = k => D.pools[S.pool].reduce((sum, p) => sum + series.records[0].counts[p][k], 0);
  if (several && view === "layers") parts.push(select("b", "Run", runs, Number));
  if (several && (view === "compare" || view === "tokens"))
    parts.push(select("a", "A", runs, Number), select("b", "B", runs, Number));
  if (several && view === "tokens") parts.push(select("show", "Show",
    [["stack", "A, B, B − A"], ["a", "A"], ["b", "B"], ["diff", "B − A"]]));
  if (SEEDS.length > 1) parts.push(select("seed", "Seed",
    [["mean", view === "tokens" ? "the first" : "mean of all"], ...SEEDS.map((seed, i) => [i, seed])],
    v => v === "mean" ? v : SEEDS[+v], S.seed === "mean" ? "mean" : SEEDS.indexOf(S.seed)));
  const samples = sortedSamples().map(i => [i, sampleName(i)]);
  if (samples.length) parts.push(view === "tokens" ?
    select("sample", "Sample", samples, Number, S.sample >= 0 ? S.sample : heldSamples()[0]) :
    select("sample", "Sample", [[-1, `all ${number(series.n)}`], ...samples], Number));
  if (samples.length > 1) parts.push(select("sort", "Sort samples", [["order", "as recorded"],
    ["share", "by the target's share"], ...several ? [["change", "by B − A"]] : []]));
  parts.push(select("pool", "Tokens",
    Object.keys(D.pools).map(name => [name, name === "both" ? "prompt and completion" : name])));
  parts.push(select("kind", "Kind", [[-1, "every kind"],
    ...D.kinds.map((name, k) => [k, S.sample < 0 ? `${name} (${number(ofKind(k))})` : name])], Number));
  parts.push(select("quantity", "Quantity", [["weight", "weight"], ["share", "norm-weighted"]]));
  if (view !== "depth") parts.push(select("scale", "Colours", [["full", "0 to 100 %"], ["most", "0 to largest"],
    ...view === "tokens" ? [] : [["uniform", "against uniform"]],
    ...view !== "tokens" && D.series.some(startOf) ? [["init", "against initialisation"]] : []], String,
    view === "tokens" && isRelative() ? "full" : S.scale));
  if (view === "all") parts.push(select("by", "Panels", [["run", "by run"], ["member", "by member"]]));
  if (view === "tokens") {
    parts.push(select("colour", "Colour by", [["winner", S.show === "diff" ? "target" : "winner"],
      ...series.members.map((_, m) => [m, memberLabel(series, m)])]));
    const slider = make("input", {type: "range", id: "choose-layer", min: 0, max: series.layers.length - 1, step: 1,
      oninput: event => { S.layer = +event.target.value; refresh(true); }});
    slider.value = S.layer;
    const search = make("input", {type: "search", id: "choose-query", placeholder: "text in tokens",
      oninput: event => { S.query = event.target.value; goToMatch(); }});
    search.value = S.query;
    parts.push(make("label", {class: "slider"}, make("span", {}, "Layer"), slider),
      make("label", {}, make("span", {}, "Search"), search));
  }
  const active = document.activeElement?.id;
  controls.replaceChildren(...parts);
  if (active?.startsWith("choose-")) document.getElementById(active)?.focus();
}
// Samples by their first words, without those that all begin with
const beginnings = D.texts.map(text => text.tokens.join("").slice(0, 4000));
const shared = beginnings.length < 2 ? 0 : beginnings.reduce((n, text) => {
  let at = 0;
  while (at < n && text[at] === beginnings[0][at]) at += 1;
  return at;
}, beginnings[0].length);
function sampleName(i) {
  const words = beginnings[i].slice(shared).replace(/\s+/g, " ").trim();
  const start = words ? (shared ? "…" : "") + words.slice(0, 36) + (words.length > 36 ? "…" : "") : D.texts[i].id;
  return `${i + 1}: ${start}` + (S.sort === "order" ? "" : ` (${pct(sampleRank(i))})`);
}
// of a sample: the target's share, or half of the sum of |B − A| over the members; the mean of the layers
function sampleRank(i) {
  const means = [D.series[S.a], focus()].map(series => {
    const record = chosen(series).find(r => partOf(r, i) >= 0);
    return record ? recordMean(series, record, i) : null;
  });
  const [one, two] = means, {members, layers, target} = focus(), own = members.indexOf(target);
  if (!two || S.sort === "change" && !(one && sameShape(D.series[S.a], focus()))) return NaN;
  return two.w.reduce((sum, v, at) => sum + (S.sort === "change" ? Math.abs(v - one.w[at]) / 2 :
    at % members.length === own ? v : 0), 0) / layers.length;
}
function sortedSamples() {
  const all = D.texts.map((_, i) => i), rank = i => { const v = sampleRank(i); return Number.isNaN(v) ? -1 : v; };
  return S.sort === "order" ? all : all.map(i => [rank(i), i]).sort((x, y) => y[0] - x[0]).map(([, i]) => i);
}
function goToMatch() { // scrolls to the first match
  refresh(true);
  const [here] = tokenTracks(), first = here.why ? undefined : Math.min(...matches(here.sample));
  const cell = cellOf(`t${first}`);
  if (cell && (cell.y < stage.scrollTop || cell.y + cell.h > stage.scrollTop + stage.clientHeight))
    stage.scrollTop = cell.y - stage.clientHeight / 3;
}
