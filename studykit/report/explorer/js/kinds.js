// Kinds: a row per kind of token, a column per member

DRAW.kinds = (pen, w, out) => {
  const series = focus(), A = series.members.length, L = series.layers.length, band = Math.min(S.band, L - 1);
  const every = {...ofKinds(series, [], A, band), name: "every kind"};
  if (!every.m) return drawMessage(pen, out, absenceReason(series));
  const found = D.kinds.map((name, k) => ({...ofKinds(series, [k], A, band), name, k})).filter(one => one.m);
  const rows = [every, ...found].map(one => S.less === "kinds" ? lessThan(one, every) : one).reverse();
  const signed = S.less === "kinds" || isRelative();
  const values = rows.flatMap(one => one.values).filter(v => !Number.isNaN(v));
  const scale = signed ? scaleOf(largest(values.map(Math.abs)), true) : sharedScale([values]);
  const where = band < 0 ? `mean of ${plural(shownLayers(series).length, "layer")}` : series.layers[band];
  const words = quantity() + (S.less === "kinds" ? " less every kind, points" :
    isRelative() ? ` ${REFERENCES[S.scale]}, points` : "");
  const asText = v => Number.isNaN(v) ? "–" : signed ? points(v) : pct(v);
  const sd = v => Number.isNaN(v) ? "" : ` ± ${pct(v).replace(" %", " points")} (sd over ${every.m.each.length} seeds)`;
  const limits = (k, c) => // a weight is no less than 0, and no more than 1
    (ofSeeds(rows[k], c) ?? []).map(v => signed ? v : clamp(v, 0, 1));
  const bounds = (k, c) => limits(k, c).map(v => pct(v, 1, signed).replace(" %", "")).join(" to ");
  const panel = {id: "kinds", title: `${series.label}, ${where}`, head: series.label, columns: series.members, scale,
    layers: rows.map(one => `${one.name} (n = ${number(one.m.n)})`), target: series.members.indexOf(series.target),
    value: (k, c) => rows[k].values[c], hatched: (k, c) => signed && includesZero(rows[k], c), under: bounds,
    label: (k, c) => `${series.label} · ${rows[k].name} · ${memberLabel(series, c)}: ${asText(rows[k].values[c])}` +
      sd(rows[k].sd[c]) + (bounds(k, c) && `, 95 % over seeds: ${bounds(k, c)}`) +
      `, n = ${plural(rows[k].m.n, "token")}`,
    act: k => { Object.assign(S, {kinds: "k" in rows[k] ? [rows[k].k] : [], view: "layers", cursor: null}); refresh(); },
    row: (k, c) => ({series: series.label, layer: where, member: series.members[c], [S.quantity]: rows[k].values[c],
      sd_over_seeds: orNull(rows[k].sd[c]), ...asBounds(limits(k, c)),
      less: S.less === "kinds" ? "every kind" : isRelative() ? S.scale : "",
      ...provenanceOf(series, rows[k].m), kind: rows[k].name})};
  const columns = shownMembers(series), of = what => (k, c) => panel[what](k, columns[c]);
  const y = legend(pen, 0, 0, w, scale, words) + (signed ? hatchKey(pen, 2 * LOOK.em, w) : 0);
  out.caption = `Mean ${words.replace(", points", "")} by kind of token, ${where}; n: tokens of the first seed. ` +
    (every.m.each.length > 1 ? "Below each mean, its 95 % interval over seeds (Student's t). " : "") +
    `${withKinds([], () => provenanceText(out, [[series, every.m]]))} ` +
    "Click a row to see this kind layer by layer.";
  return y + heatmap(pen, out, 0, y, w, {...panel, columns: columns.map(m => series.members[m]),
    target: columns.indexOf(panel.target), value: of("value"), label: of("label"), row: of("row"),
    hatched: of("hatched"), under: of("under"), roomy: out.room - y});
};
function ofKinds(series, kinds, A, band) { // {m, values, sd, each} of kinds by member; m is null where there are none
  return withKinds(kinds, () => {
    const m = mean(series), shown = m && isRelative() ? relative(series, m) : m;
    if (!m) return {m};
    const byMember = w => series.members.map((_, c) => band >= 0 ? w[band * A + c] :
      average(shownLayers(series).map(l => w[l * A + c])));
    if (!shown) return {m, each: [], values: series.members.map(() => NaN), sd: series.members.map(() => NaN)};
    const each = shown.each.map(one => ({w: byMember(one.w), record: one.record}));
    return {m, each, values: byMember(shown.w), sd: series.members.map((_, c) => spread(each.map(one => one.w[c])))};
  });
}
function lessThan(one, every) { // a kind less every kind, seed by seed
  const partner = each => every.each.find(other => other.record === each.record);
  const each = one.each.filter(partner).map(mine => ({...mine, w: mine.w.map((v, c) => v - partner(mine).w[c])}));
  return {...one, each, values: one.values.map((_, c) => each.length ? average(each.map(of => of.w[c])) : NaN),
    sd: one.sd.map((_, c) => spread(each.map(of => of.w[c])))};
}
