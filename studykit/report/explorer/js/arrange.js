// Arrangement: the members of a panel in the order that is chosen, and layers in groups, without those that are hidden

function shownMembers(series) { // the indices of the members that are shown, in their order
  const shown = series.members.map((_, m) => m).filter(m => !S.hidden.includes(MEMBERS.indexOf(series.members[m])));
  const like = focus(), m = ["fused", "mine"].includes(S.order) ? null : mean(like);
  if (!shown.length) return series.members.map((_, m) => m); // a reader who hides all members gets all
  if (S.order === "mine") {
    const places = listedMembers(), place = x => places.indexOf(MEMBERS.indexOf(series.members[x]));
    return shown.sort((x, y) => place(x) - place(y));
  }
  if (!m) return shown;
  const profile = name => { // the weights of a member in all layers of the series in focus
    const at = like.members.indexOf(name);
    return like.layers.map((_, l) => at < 0 ? 0 : m.w[l * like.members.length + at]);
  };
  const profiles = series.members.map(profile), weight = profiles.map(average);
  if (S.order === "weight") return shown.sort((x, y) => weight[y] - weight[x]);
  const distance = (x, y) => average(profiles[x].map((v, l) => Math.abs(v - profiles[y][l])));
  const chain = [shown.reduce((best, x) => weight[x] > weight[best] ? x : best)]; // each beside the one most like it
  const nearer = (best, x) => distance(chain.at(-1), x) < distance(chain.at(-1), best) ? x : best;
  while (chain.length < shown.length) chain.push(shown.filter(x => !chain.includes(x)).reduce(nearer));
  return chain;
}
function listedMembers() { // the indices of all members in the order that is chosen, those that are not shown last
  const first = S.order === "mine" ? S.mine : S.order === "fused" ? [] :
    shownMembers(focus()).map(m => MEMBERS.indexOf(focus().members[m]));
  return [...first, ...MEMBERS.map((_, m) => m).filter(m => !first.includes(m))];
}
function moveMember(m, before) { // puts a member before another one, or last
  const others = listedMembers().filter(other => other !== m);
  others.splice(before < 0 ? others.length : others.indexOf(before), 0, m);
  Object.assign(S, {order: "mine", mine: others});
  refresh();
}
const MOST_GROUPS = 8; // of layers that are alike
function shownLayers(series) { // the indices of the layers that are shown; a reader who hides all gets all
  const every = series.layers.map((_, l) => l), shown = every.filter(l => !S.hiddenLayers.includes(l));
  return shown.length ? shown : every;
}
function layerGroups(series) { // the layers that are shown, a list for each row
  const shown = shownLayers(series), A = series.members.length;
  if (S.group !== "alike") {
    const rows = series.layers.map(() => []);
    for (const l of shown) rows[Math.floor(l / S.group)].push(l);
    return rows.filter(row => row.length);
  }
  const m = mean(series), groups = shown.map(l => [l]);
  const middle = (group, c) => average(group.map(l => m.w[l * A + c]));
  const apart = (one, two) => average(series.members.map((_, c) => Math.abs(middle(one, c) - middle(two, c))));
  while (m && groups.length > MOST_GROUPS) { // joins the two neighbours that are most alike
    let least = 0;
    for (let i = 1; i < groups.length - 1; i++)
      if (apart(groups[i], groups[i + 1]) < apart(groups[least], groups[least + 1])) least = i;
    groups.splice(least, 2, [...groups[least], ...groups[least + 1]]);
  }
  return groups;
}
function groupName(layers, group) { // as "L3", "L1 to L4" or "L1 to L4 (3 layers)" where one between them is hidden
  const first = group[0], last = group.at(-1), gaps = last - first + 1 > group.length;
  return first === last ? layers[first] :
    `${layers[first]} to ${layers[last]}${gaps ? ` (${group.length} layers)` : ""}`;
}
function arranged(panel, series) { // a panel of a series, as `heatmap` takes it
  const columns = shownMembers(series), of = what => panel[what] && ((l, c) => panel[what](l, columns[c]));
  return grouped({...panel, columns: columns.map(m => panel.columns[m]), target: columns.indexOf(panel.target),
    value: of("value"), label: of("label"), row: of("row"), act: of("act"), hatched: of("hatched")},
  layerGroups(series));
}
function grouped(panel, spans) { // a panel whose cells are means over groups of layers
  if (spans.length === panel.layers.length) return panel;
  const layers = spans.map(group => groupName(panel.layers, group));
  const value = (l, c) => average(spans[l].map(k => panel.value(k, c))), one = l => spans[l].length < 2;
  const asText = v => panel.scale.signed ? points(v) : pct(v), first = l => spans[l][0];
  const meanRow = (l, c) => Object.fromEntries(Object.entries(panel.row(first(l), c)).map(([name, v]) =>
    [name, name === "layer" ? layers[l] : name.endsWith("_over_seeds") ? null :
      typeof v === "number" && isQuantity(name) ? average(spans[l].map(k => panel.row(k, c)[name])) : v]));
  return {...panel, layers, value, marked: spans.findIndex(group => group.includes(panel.marked)),
    label: (l, c) => one(l) ? panel.label(first(l), c) :
      `${panel.head} · ${layers[l]} · ${panel.columns[c]}: ${asText(value(l, c))}, mean of ${spans[l].length} layers`,
    hatched: (l, c) => one(l) && !!panel.hatched?.(first(l), c), act: panel.act && ((l, c) => panel.act(first(l), c)),
    row: panel.row && ((l, c) => one(l) ? panel.row(first(l), c) : meanRow(l, c))};
}
// the columns of rows that hold what a view shows
const isQuantity = name => /^(weight|share)(_difference)?$|^against_|^value$/.test(name);

function byMember(shown, {panels, scale}) { // a panel per member, with a column per series
  const found = new Set(shown.flatMap(([series]) => shownMembers(series).map(m => MEMBERS.indexOf(series.members[m]))));
  const names = listedMembers().filter(m => found.has(m)).map(m => MEMBERS[m]);
  const layers = shown.reduce((most, [series]) => series.layers.length > most.length ? series.layers : most, []);
  return names.map((name, i) => {
    const of = (what, without) => (l, c) => { // what a series' own panel gives for this member
      const [series] = shown[c], m = series.members.indexOf(name);
      return m >= 0 && l < series.layers.length ? panels[c][what]?.(l, m) : without(shown[c][0], l);
    };
    const label = of("label", (series, l) => `${series.label} · ${layers[l]}: –`);
    const longest = shown.find(([series]) => series.layers === layers)[0];
    return grouped({id: `member ${i}`, title: name, head: name,
      columns: shown.map((_, c) => String(c + 1)), target: -1, layers, scale,
      value: of("value", () => NaN), hatched: of("hatched", () => false), label: (l, c) => `${name} · ${label(l, c)}`,
      row: of("row", (series, l) =>
        ({series: series.label, layer: layers[l], member: name, [S.quantity]: null}))}, layerGroups(longest));
  });
}
