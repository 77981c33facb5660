// Training: the weights of all layers at each validation, under the loss on the same steps

const lookAt = () => clamp(S.look, 0, TRAININGS[S.run].looks.length - 1);
function lossChart(pen, out, y, w, run, tall) { // the completion loss of validation, a line per phase
  const em = LOOK.em, left = 3.4 * em, right = w - em, bottom = y + tall, {looks} = run;
  const small = {size: 0.8, fill: LOOK.soft};
  const last = Math.max(1, looks.at(-1).step), losses = looks.map(look => look.loss);
  const low = Math.min(...losses), high = Math.max(...losses), room = (high - low || 1) * 0.08;
  const px = step => left + step / last * (right - left);
  const py = v => bottom - (v - low + room) / (high - low + 2 * room) * (tall - 2 * em);
  pen.text(0, y + 0.5 * em, fitted("completion loss of validation (nats per token)", w, {bold: true, size: 0.9}),
    {bold: true, size: 0.9});
  for (const v of [low, (low + high) / 2, high]) {
    pen.line([[left, py(v)], [right, py(v)]], LOOK.line);
    pen.text(left - 0.4 * em, py(v), v.toFixed(3), {...small, align: "right"});
  }
  const phases = [...new Set(looks.map(look => look.phase))];
  for (const phase of phases) {
    const of = looks.filter(look => look.phase === phase), start = px(of[0].step);
    if (phase !== phases[0]) pen.line([[start, y + 1.4 * em], [start, bottom]], LOOK.ink, 1);
    if (phases.length > 1) pen.text(start + 0.3 * em, y + 1.7 * em, phase, small);
    pen.line(of.map(look => [px(look.step), py(look.loss)]), LOOK.accent, 2);
  }
  pen.line([[px(looks[lookAt()].step), y + 1.4 * em], [px(looks[lookAt()].step), bottom]], LOOK.accent, 1, [3, 3]);
  looks.forEach((look, i) => {
    const x = px(look.step), at = py(look.loss), here = i === lookAt();
    pen.dot(x, at, here ? 5 : 3, here ? LOOK.accent : css(LOOK.paper), LOOK.accent);
    out.cells.push({id: `look/${i}`, x: x - 6, y: at - 6, w: 12, h: 12,
      label: `${look.phase}, step ${look.step}: ${look.loss.toFixed(4)} nats per token`,
      to: {ArrowLeft: `look/${i - 1}`, ArrowRight: `look/${i + 1}`}, act: () => { S.look = i; refresh(); }});
  });
  for (const step of [0, last / 2, last]) pen.text(px(step), bottom + 0.8 * em, number(Math.round(step)),
    {...small, align: "center"});
  pen.text((left + right) / 2, bottom + 2 * em, "optimizer step", {...small, align: "center"});
  return tall + 3 * em;
}
DRAW.training = (pen, w, out) => {
  const run = TRAININGS[S.run], look = run.looks[lookAt()], A = run.members.length, em = LOOK.em;
  const scale = scaleOf(S.scale === "full" ? 1 : Math.max(...run.looks.map(one => largest(one.weights))));
  const series = {...run, records: [], masked: [], mask: "none"}, at = (l, c) => look.weights[l * A + c];
  let y = lossChart(pen, out, 0, w, run, 11 * em) + em;
  y += legend(pen, 0, y, w, scale, "mean weight");
  out.caption = `${run.label}: mean weight per layer and member at step ${look.step} (${look.phase}), on the first ` +
    "validation rows, under the mask of the phase, if it has one; above, the loss at every validation. Click a " +
    "point, move the slider or press Play.";
  return y + heatmap(pen, out, 0, y, w, {...arranged({id: "training", title: `${look.phase}, step ${look.step}`,
    head: run.label, columns: run.members, layers: run.layers, target: run.members.indexOf(run.target), scale,
    value: at,
    label: (l, c) => `${run.label} · ${run.layers[l]} · ${run.members[c]}: ${pct(at(l, c))} at step ${look.step}`,
    row: (l, c) => ({series: run.label, phase: look.phase, step: look.step, loss: look.loss, layer: run.layers[l],
      member: run.members[c], weight: at(l, c)})}, series), roomy: out.room - y});
};
let playing = 0; // a timer
function play() { // from look to look, from the first if the last is shown; a second press pauses
  const last = TRAININGS[S.run].looks.length - 1;
  if (!playing && lookAt() === last) S.look = 0;
  if (playing) clearInterval(playing);
  playing = playing ? 0 : setInterval(() => {
    if (S.view !== "training" || lookAt() >= last) { clearInterval(playing); playing = 0; return refresh(); }
    S.look = lookAt() + 1;
    refresh();
  }, 600);
  refresh();
}
function trainingControls() {
  const slider = make("input", {type: "range", id: "choose-look", min: 0, step: 1,
    max: TRAININGS[S.run].looks.length - 1, oninput: event => { S.look = +event.target.value; refresh(true); }});
  slider.value = lookAt();
  return [select("run", "Training", TRAININGS.map((run, i) => [i, run.label]), Number),
    make("label", {class: "slider"}, make("span", {}, "Validation"), slider),
    make("button", {type: "button", id: "choose-play", onclick: play}, playing ? "Pause" : "Play"),
    select("scale", "Colours", [["full", "0 to 100 %"], ["most", "0 to largest"]], String,
      isRelative() ? "most" : S.scale),
    arrangement()];
}
