// The bench of a live kernel: a text of one's own, read by any fusion and phase, with members muted. The frame around
// this page carries what is asked to the kernel, which answers with what it does now, a refusal, or a new page.

const BENCH = D.live && {run: D.live.run, phase: D.live.phase, muted: D.live.muted};
const isMuted = name => Boolean(BENCH?.muted.includes(name));
const now = make("span", {class: "now", role: "status"});
const busy = make("progress", {hidden: "", "aria-label": "The kernel works"});
const runButton = make("button",
  {type: "button", id: "bench-read", title: "Ctrl Enter", onclick: askKernel}, "Run model");
const choices = make("div", {class: "choices"}), fields = make("fieldset");

function choice(key, label, options) { // options: pairs of a value and its words
  const box = make("select", {id: `bench-${key}`, onchange: event => choose(key, event.target.value)});
  box.append(...options.map(([value, words]) => make("option", {value}, words)));
  box.value = BENCH[key];
  return make("label", {}, make("span", {}, label), box);
}
function choose(key, value) { // a run begins with its last phase, and a phase with its own mask
  BENCH[key] = value;
  const {phases} = D.live.runs.find(run => run.name === BENCH.run);
  if (!phases.some(phase => phase.key === BENCH.phase) || key === "run") BENCH.phase = phases.at(-1).key;
  BENCH.muted = phases.find(phase => phase.key === BENCH.phase).masked;
  changed(key);
}
function changed(key) { // draws the choices anew; the list of members strikes the muted ones through, too
  showChoices();
  refresh();
  document.getElementById(`bench-${key}`).focus();
}
function showChoices() {
  const run = D.live.runs.find(one => one.name === BENCH.run);
  const mutes = run.members.map(name => make("button", {type: "button", class: "mute", "aria-pressed": isMuted(name),
    id: `bench-mute-${name}`, title: isMuted(name) ? `Let ${name} take part` : `Mute ${name}`, onclick: () => {
      BENCH.muted = run.members.filter(other => isMuted(other) !== (other === name));
      changed(`mute-${name}`);
    }}, name));
  choices.replaceChildren(choice("run", "Fusion", D.live.runs.map(({name}) => [name, name])),
    choice("phase", "Phase", run.phases.map(({key, title}) => [key, title])),
    make("div", {class: "mutes", role: "group", "aria-label": "Members that are muted"}, "Mute", ...mutes),
    runButton);
}
function textBox(key, label, placeholder = "") {
  const box = make("textarea", {id: `bench-${key}`, rows: clamp(D.live[key].split("\n").length + 1, 3, 9),
    spellcheck: "false", placeholder});
  box.value = D.live[key];
  return make("label", {}, make("span", {}, label), box);
}
function resultsOf({readings, about}) { // side by side: the loss of the text, and what the model writes instead
  if (!readings.length) return [];
  return [make("div", {class: "readings"}, ...readings.map(({state, loss, written}) => make("section", {},
    make("p", {}, make("b", {}, state), ": loss ", make("span", {class: "loss"}, loss?.toFixed(4) ?? "no number"),
      " nats per token; after the prompt the model writes"), make("pre", {tabindex: 0}, written)))),
  make("p", {class: "about"}, about)];
}
function askKernel() {
  const text = key => document.getElementById(`bench-${key}`).value;
  const at = new URLSearchParams(viewAddress());
  at.set("view", S.view); // the page of other readings may begin with another one
  wait(true);
  tellNow("Asking the kernel");
  parent.postMessage({read: {...BENCH, prompt: text("prompt"), completion: text("completion"), at: String(at),
    theme: S.theme}}, "*");
}
function wait(isBusy) { // what is changed while the kernel reads would be lost with the page
  fields.disabled = isBusy;
  busy.hidden = !isBusy;
}
function tellNow(words, wrong = false) {
  now.textContent = wrong ? words : `${words} …`;
  now.classList.toggle("wrong", wrong);
}
if (BENCH) {
  main.querySelector("header").append(make("details", {class: "bench", open: "", onkeydown: event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !fields.disabled) askKernel();
  }}, make("summary", {}, "Your own text"), fields, make("p", {class: "state"}, busy, now), ...resultsOf(D.live)));
  fields.append(make("div", {class: "texts"}, textBox("prompt", "Prompt"),
    textBox("completion", "Completion", "if this is empty, the model writes one")), choices);
  S.theme = document.documentElement.dataset.theme = D.live.theme;
  addEventListener("message", ({source, data}) => {
    if (source !== parent || !data?.bench) return;
    if (data.bench.now) return tellNow(data.bench.now);
    wait(false);
    tellNow(data.bench.refused, true);
  });
  showChoices();
  if (D.live.readings.length) runButton.focus({preventScroll: true}); // as before the page of these readings came
}
