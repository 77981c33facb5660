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
  const rank = S.sort === "order" ? NaN : sampleRank(i);
  return `${i + 1}: ${start}` + (S.sort === "order" ? "" :
    ` (${S.sort === "loss" && !Number.isNaN(rank) ? `${rank.toFixed(2)} nats` : pct(rank)})`);
}
// of a sample: the target's share, the mean loss of the tokens, or half of the sum of |B − A| over the members; the
// mean of the layers
function sampleRank(i) {
  if (S.sort === "loss") {
    const record = chosen(focus()).find(r => partOf(r, i) >= 0), text = D.texts[i];
    const losses = [...text.tokens.keys()].filter(t => record && counted(text, t)).map(t => lossOf(record, i, t));
    return losses.length ? average(losses) : NaN;
  }
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
