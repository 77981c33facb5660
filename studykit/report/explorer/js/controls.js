// Controls

function select(key, label, options, parse = String, value = S[key]) { // options: pairs of a value and its words
  const box = make("select", {id: `choose-${key}`,
    onchange: event => { S[key] = parse(event.target.value); refresh(); }});
  box.append(...options.map(([value, words]) => make("option", {value}, words)));
  box.value = String(value);
  return make("label", {}, make("span", {}, label), box);
}
// Series as chips, by method. A view of one or two series has buttons for them, the others show or hide each series.
const ROLES = {layers: ["b"], kinds: ["b"], compare: ["a", "b"], tokens: ["a", "b"]};
function toggled(list, i) { return list.includes(i) ? list.filter(other => other !== i) : [...list, i]; }
function chips() {
  const roles = ROLES[S.view] || [], groups = new Map();
  D.series.forEach((series, i) => {
    const of = group(series.label);
    groups.set(of, [...groups.get(of) || [], i]);
  });
  const press = (id, words, pressed, act, title) => make("button",
    {type: "button", id, "aria-pressed": pressed, title, onclick: () => { act(); refresh(); }}, words);
  const chip = (i, name) => {
    const {label} = D.series[i], swatch = make("i", {class: "swatch"});
    Object.assign(swatch.style, {background: seriesFill(i), borderColor: seriesColour(i)});
    const one = (role, words) => press(`chip-${role}-${i}`, words, S[role] === i, () => { S[role] = i; },
      `Show ${label}${roles.length > 1 ? ` as ${role.toUpperCase()}` : ""}`);
    if (roles.length === 1) return make("span", {class: "chip"}, swatch, one("b", name));
    if (roles.length) return make("span", {class: "chip"}, swatch, name, one("a", "A"), one("b", "B"));
    return make("span", {class: "chip"}, swatch, press(`chip-on-${i}`, name, !S.off.includes(i),
      () => { S.off = toggled(S.off, i); }, `Show or hide ${label}`));
  };
  return make("div", {class: "chips", role: "group", "aria-label": "Series"}, ...[...groups].map(([of, members]) =>
    make("span", {class: "of", title: D.series[members[0]].title}, of, ...members.map(i =>
      chip(i, of ? D.series[i].label.slice(of.length + 3) : D.series[i].label)))));
}
function tick(id, name, checked, act) {
  const box = make("input", {type: "checkbox", id, onchange: act});
  box.checked = checked;
  return make("label", {class: "tick"}, box, name);
}
function hides(id, name, key, i) { // a box that hides one of a list, by its index in the choice of this key
  return tick(id, name, !S[key].includes(i), () => { S[key] = toggled(S[key], i); refresh(true); });
}
function menu(name, words, ...children) { // boxes that stand open beside a wide picture, and fold above a narrow one
  const list = make("details", {class: "menu", ontoggle: () => {
    if (list.open) opened.add(name); else opened.delete(name);
    const {right} = list.getBoundingClientRect();
    list.lastChild.style.right = right < list.lastChild.offsetWidth + 8 ? "auto" : "0"; // it stays on the page
  }}, make("summary", {id: `choose-${name}`}, words), make("div", {}, ...children));
  list.open = opened.has(name);
  return list;
}
const opened = new Set(matchMedia("(min-width: 62rem)").matches ? ["kinds", "arrangement"] : []);
function kindMenu(count) { // count(k): the tokens of a kind
  const {counts} = focus().records[0], found = D.kinds.map((_, k) => k)
    .filter(k => S.kinds.includes(k) || counts.some(of => of[k]));
  return menu("kinds", `Kinds: ${kindsText()}`, ...found.map(k => tick(`choose-kind-${k}`,
    S.sample < 0 ? `${D.kinds[k]} (${number(count(k))})` : D.kinds[k], S.kinds.includes(k),
    () => { S.kinds = toggled(S.kinds, k).sort((one, two) => one - two); refresh(); })));
}
let dragged = -1; // the member whose line is dragged
function memberLine(m) { // shows or hides a member; it is dragged to its place, or moved by Alt and the arrow keys
  const line = hides(`choose-member-${m}`, MEMBERS[m], "hidden", m);
  line.classList.toggle("muted", isMuted(MEMBERS[m]));
  line.draggable = true;
  line.title = "Drag it, or press Alt and an arrow key, to move it";
  line.addEventListener("dragstart", event => {
    dragged = m;
    event.dataTransfer.setData("text/plain", MEMBERS[m]); // some browsers drag nothing without it
  });
  line.addEventListener("dragend", () => { dragged = -1; });
  line.addEventListener("dragover", event => event.preventDefault()); // it may be dropped here
  line.addEventListener("drop", event => {
    event.preventDefault();
    if (dragged < 0 || dragged === m) return;
    const {top, height} = line.getBoundingClientRect(), list = listedMembers();
    const before = event.clientY < top + height / 2 ? m : list[list.indexOf(m) + 1] ?? -1;
    if (before !== dragged) moveMember(dragged, before);
  });
  line.addEventListener("keydown", event => {
    const step = {ArrowUp: -1, ArrowDown: 2}[event.key], list = listedMembers(), to = list.indexOf(m) + step;
    if (!event.altKey || !step) return;
    event.preventDefault();
    event.stopPropagation();
    if (to >= 0 && to <= list.length) moveMember(m, list[to] ?? -1);
  });
  return line;
}
function arrangement() { // which members and layers are shown, the order of the members, and how layers are grouped
  const deepest = D.series.reduce((most, {layers}) => layers.length > most.length ? layers : most, []);
  const deep = deepest.length, layers = deepest.map((name, l) => hides(`choose-layer-${l}`, name, "hiddenLayers", l));
  const sizes = [2, 4, 8].filter(n => n < deep).map(n => [n, `in groups of ${n}`]);
  return menu("arrangement", "Members, layers", ...listedMembers().map(memberLine),
    select("order", "Order of members",
      [["fused", "as fused"], ["weight", "by weight"], ["alike", "alike together"], ["mine", "as dragged"]]),
    select("group", "Layers",
      [["1", "each"], ...sizes, ...deep > MOST_GROUPS ? [["alike", "alike together"]] : []]),
    make("div", {class: "layers", role: "group", "aria-label": "Layers that are shown"}, ...layers));
}
function buildControls() {
  if (S.view === "training") return showControls(trainingControls());
  if (+S.colour >= focus().members.length) S.colour = "winner"; // another series may have fewer members
  const series = focus(), view = S.view, parts = several ? [chips()] : [];
  const ofKind = k => D.pools[S.pool].reduce((sum, p) => sum + series.records[0].counts[p][k], 0);
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
    ["share", "by the target's share"], ["loss", "by loss"], ...several ? [["change", "by B − A"]] : []]));
  parts.push(select("pool", "Tokens",
    Object.keys(D.pools).map(name => [name, name === "both" ? "prompt and completion" : name])));
  if (view === "kinds") parts.push(
    select("band", "Layers", [[-1, "mean of all"], ...series.layers.map((name, l) => [l, name])], Number),
    select("less", "Numbers", [["none", "weights"], ["kinds", "less every kind"]]));
  else parts.push(kindMenu(ofKind));
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
      oninput: event => { S.layer = +event.target.value; refresh(true, drawn.height); }});
    slider.value = S.layer;
    const search = make("input", {type: "search", id: "choose-query", placeholder: "text in tokens",
      oninput: event => { S.query = event.target.value; goToMatch(); }});
    search.value = S.query;
    parts.push(make("label", {class: "slider"}, make("span", {}, "Layer"), slider),
      make("label", {}, make("span", {}, "Search"), search));
  }
  if (view !== "depth") parts.push(arrangement());
  showControls(parts);
}
function showControls(parts) {
  const active = document.activeElement?.id;
  controls.replaceChildren(...parts);
  if (/^(choose|chip)-/.test(active)) document.getElementById(active)?.focus();
}
