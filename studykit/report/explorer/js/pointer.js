// Pointer and keyboard

function cellUnder(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - 2;
  const y = event.clientY - box.top - 2 + parseFloat(canvas.style.top);
  const within = c => x >= c.x && x < c.x + c.w + 1.5 && y >= c.y && y < c.y + c.h + 3;
  const area = drawn.areas.find(within);
  return area ? area.at(x - area.x, y - area.y) : drawn.cells.find(within);
}
function showTip(text, x, y) {
  tip.textContent = text;
  tip.style.display = "block";
  tip.style.left = `${clamp(x + 12, 4, Math.max(4, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? Math.max(2, y - tip.offsetHeight - 8) : y + 18}px`;
}
function hideTip() { tip.style.display = "none"; }
canvas.addEventListener("pointermove", event => {
  const cell = cellUnder(event);
  canvas.classList.toggle("acts", !!cell?.act);
  markLinked(cell);
  if (cell) showTip(cell.label, event.clientX, event.clientY); else hideTip();
});
canvas.addEventListener("pointerleave", () => { hideTip(); markLinked(null); });
canvas.addEventListener("click", event => {
  const cell = cellUnder(event);
  if (cell?.act) cell.act(event); else if (cell) showTip(cell.label, event.clientX, event.clientY);
});
let marks = []; // frames around what shows the same as the cell under the pointer
function markLinked(cell) {
  const same = cell?.link === undefined ? [] : [
    ...drawn.cells.filter(other => other.link === cell.link && !other.column), ...drawn.linked(cell.link)].slice(0, 60);
  for (const mark of marks) mark.remove();
  marks = same.map(({x, y, w, h}) => {
    const mark = make("div", {class: "mark"});
    Object.assign(mark.style, {left: `${x}px`, top: `${y}px`, width: `${w + 4}px`, height: `${h + 4}px`});
    return mark;
  });
  stage.append(...marks);
}
canvas.addEventListener("keydown", event => {
  const way = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  const acts = event.key === "Enter" || event.key === " ";
  if (!way && !acts || !drawn.cells.length) return;
  event.preventDefault();
  if (acts) return cellOf(S.cursor)?.act?.(event);
  const from = cellOf(S.cursor), cell = cellOf(from?.to?.[event.key]) || nearestCell(from, way);
  S.cursor = cell.id;
  if (cell.y < stage.scrollTop) stage.scrollTop = cell.y - 8;
  else if (cell.y + cell.h > stage.scrollTop + stage.clientHeight)
    stage.scrollTop = cell.y + cell.h - stage.clientHeight + 12;
  draw(drawn.height);
  markLinked(cell);
  const box = canvas.getBoundingClientRect();
  showTip(cell.label, box.left + cell.x + cell.w, box.top + cell.y + cell.h - parseFloat(canvas.style.top));
  spoken.textContent = cell.label;
});
const stepOf = (values, value, by) => values[(values.indexOf(value) + by + values.length) % values.length];
addEventListener("keydown", event => { // KEYS: anywhere on the page but in a field
  if (keyList.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches?.("input, select, textarea")) return;
  const samples = sortedSamples().filter(i => isHeld(focus(), i)), series = D.series.map((_, i) => i);
  const at = samples.includes(S.sample) ? S.sample : samples[0], top = focus().layers.length - 1;
  const act = {
    j: () => { S.sample = stepOf(samples, at, 1) ?? -1; }, k: () => { S.sample = stepOf(samples, at, -1) ?? -1; },
    "[": () => { S.layer = clamp(S.layer - 1, 0, top); }, "]": () => { S.layer = clamp(S.layer + 1, 0, top); },
    a: () => { S.a = stepOf(series, S.a, 1); }, b: () => { S.b = stepOf(series, S.b, 1); },
    Escape: () => { S.cursor = null; S.pinned = []; },
  }[event.key];
  if (act) { act(); refresh(); }
  if (event.key === "?") showKeys();
});
function nearestCell(from, way) { // the nearest cell in a direction, or without a start the first token or cell
  if (!from) return cellOf("t0") || drawn.cells[0];
  const mid = c => [c.x + c.w / 2, c.y + c.h / 2], [x, y] = mid(from);
  let best = from, least = Infinity;
  for (const cell of drawn.cells) {
    const [dx, dy] = [mid(cell)[0] - x, mid(cell)[1] - y];
    const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1] + dy * way[0]);
    if (ahead > 0.5 && ahead + 4 * aside < least) { least = ahead + 4 * aside; best = cell; }
  }
  return best;
}
