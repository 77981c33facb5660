// The address of a view: the choices that differ from those at the start, in the part of the address after "#"

const START = {...S}, isIndex = values => i => Number.isInteger(i) && i >= 0 && i < values.length;
const SIZES = {layer: Math.max(...D.series.map(series => series.layers.length)),
  member: Math.max(...D.series.map(series => series.members.length))};
const oneOf = (...values) => v => values.includes(v);
const someOf = values => list => list.every(isIndex(values)) && new Set(list).size === list.length;
const ACCEPTED = { // by choice: whether a value can be chosen
  view: v => Object.hasOwn(VIEWS, v), a: isIndex(D.series), b: isIndex(D.series), seed: oneOf("mean", ...SEEDS),
  sample: i => i === -1 || isIndex(D.texts)(i), pool: v => Object.hasOwn(D.pools, v),
  kinds: someOf(D.kinds), quantity: oneOf("weight", "share"),
  scale: oneOf("full", "most", "uniform", "init"), by: oneOf("run", "member"),
  sort: oneOf("order", "share", "loss", "change"), layer: isIndex({length: SIZES.layer}),
  colour: v => v === "winner" || isIndex({length: SIZES.member})(+v), show: oneOf("stack", "a", "b", "diff"),
  pinned: someOf({length: Math.max(0, ...D.texts.map(text => text.tokens.length))}),
  off: someOf(D.series), hidden: someOf(MEMBERS), hiddenLayers: someOf({length: SIZES.layer}),
  order: oneOf("fused", "weight", "alike", "mine"), mine: someOf(MEMBERS),
  group: oneOf("1", "2", "4", "8", "alike"), band: i => i === -1 || isIndex({length: SIZES.layer})(i),
  less: oneOf("none", "kinds"), run: isIndex(TRAININGS), look: i => Number.isInteger(i) && i >= 0,
  query: () => true,
};
function viewAddress() { // the choices as text, as "view=tokens&layer=2"
  const changed = Object.keys(ACCEPTED).filter(name => String(S[name]) !== String(START[name]));
  return new URLSearchParams(changed.map(name => [name, String(S[name])])).toString();
}
function readAddress(text) { // takes the choices of an address; what cannot be chosen here stays as at the start
  const given = new URLSearchParams(text);
  for (const name of Object.keys(ACCEPTED)) {
    const words = given.get(name);
    const value = words === null ? START[name] :
      Array.isArray(START[name]) ? words.split(",").filter(Boolean).map(Number) :
      typeof START[name] === "number" || name === "seed" && words !== "mean" ? Number(words) : words;
    S[name] = ACCEPTED[name](value) ? value : START[name];
  }
}
const addressInBar = () => location.hash.slice(1);
let inReport = ""; // the address of the report around this page, up to the choices; "" outside of reports
let writing = 0; // a timer: browsers refuse more than some changes of the address in a second
function writeAddress() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const text = viewAddress();
    if (text === written) return;
    written = text;
    history.replaceState(null, "", `${location.href.split("#")[0]}#${text}`);
    if (parent !== window) parent.postMessage({explorer: text}, "*"); // a report shows it in its own address
  }, 250);
}
addEventListener("hashchange", () => { readAddress(addressInBar()); refresh(); });
addEventListener("message", event => { // from a report: its address, and the choices that it names for this page
  if (event.source !== parent || parent === window || typeof event.data?.page !== "string") return;
  inReport = event.data.page;
  if (typeof event.data.explorer !== "string") return;
  readAddress(event.data.explorer);
  refresh();
});
const inPython = JSON.stringify; // texts, lists and dictionaries of these are written alike in both
function pythonLine() { // opens this view, in the directory in which this page was made
  const training = S.view === "training" ? D.call.training : ""; // long, and of no use to other views
  const given = {title: D.call.title, tokens: D.call.tokens, view: D.call.view, training, at: viewAddress()};
  const options = Object.entries(given).filter(([, value]) => value)
    .map(([name, value]) => `${name}=${inPython(value)}`);
  return `import studykit; studykit.explore(${[inPython(D.call.what), ...options].join(", ")})`;
}
function copyLink() { // the address of this view in a page of its own, else the Python line that opens it
  const before = parent === window ? `${location.href.split("#")[0]}#` : inReport;
  copyText(before ? before + viewAddress() : D.call ? pythonLine() : `at=${inPython(viewAddress())}`);
}
function copyText(text) {
  const box = make("textarea", {}, text);
  main.append(box);
  box.select();
  const copied = document.execCommand("copy"); // a frame without an origin has no other clipboard
  box.remove();
  const start = text.length > 160 ? `${text.slice(0, 160)}…` : text;
  spoken.textContent = copied ? `Copied: ${start}` : `This browser copies nothing from a frame: ${text}`;
  showTip(spoken.textContent, innerWidth - 300, 30);
}
readAddress(addressInBar() || D.at);
let written = viewAddress();
if (parent !== window) parent.postMessage({explorer: null}, "*"); // asks the report for its address
