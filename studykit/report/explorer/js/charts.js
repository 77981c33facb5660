// Charts: a quantity of every series by layer

// Markers of the static figures as polygons in a square from -1 to 1; a marker that is not here is drawn as a circle.
const [TIP, ARM] = [1.1, 0.38];
const POLYGONS = {
  s: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], "^": [[0, -TIP], [TIP, 0.9], [-TIP, 0.9]],
  D: [[0, -TIP], [TIP, 0], [0, TIP], [-TIP, 0]], v: [[0, TIP], [TIP, -0.9], [-TIP, -0.9]],
  P: [[-ARM, -1], [ARM, -1], [ARM, -ARM], [1, -ARM], [1, ARM], [ARM, ARM], [ARM, 1], [-ARM, 1], [-ARM, ARM], [-1, ARM],
    [-1, -ARM], [-ARM, -ARM]],
  X: [[-1, -0.5], [-0.5, -1], [0, -0.5], [0.5, -1], [1, -0.5], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5], [-0.5, 1],
    [-1, 0.5], [-0.5, 0]],
  "*": Array.from({length: 10}, (_, i) => [Math.sin(i * Math.PI / 5), -Math.cos(i * Math.PI / 5)].map(
    v => v * (i % 2 ? 0.5 : 1.25))),
};
function marker(pen, x, y, r, i) { // of series i
  const {marker} = D.series[i], colour = seriesColour(i), fill = seriesFill(i);
  if (POLYGONS[marker]) pen.polygon(POLYGONS[marker].map(([dx, dy]) => [x + r * dx, y + r * dy]), fill, colour);
  else pen.dot(x, y, r, fill, colour);
}

function lines(pen, out, x, y, w, tall, chart, shown) { // one line per series
  const em = LOOK.em, left = x + 3 * em, right = x + w - em, bottom = y + tall, small = {size: 0.8, fill: LOOK.soft};
  const curves = shown.map(([series, m, i]) => [series, series.layers.map((_, l) => chart.of(series, m, l)), i, m]);
  const sizes = [...new Set(shown.map(([series]) => activeMembers(series)))].filter(A => A > 1);
  const highest = curves.flatMap(([, values]) => values.flatMap(([v, sd, each]) => [v + (sd || 0), ...each]));
  const top = 1.08 * Math.max(0.01, ...sizes.map(chart.uniform), ...highest);
  const depth = Math.max(...curves.map(([, values]) => values.length));
  const px = l => left + (depth < 2 ? 0.5 : (l + 0.5) / depth) * (right - left);
  const py = v => bottom - v / top * (tall - 2 * em);
  pen.text(x, y + 0.5 * em, fitted(chart.title, w, {bold: true, size: 0.9}), {bold: true, size: 0.9});
  for (let i = 0, step = roundStep(top / 4); i * step <= top; i++) {
    const v = i * step;
    pen.line([[left, py(v)], [right, py(v)]], LOOK.line);
    pen.text(left - 0.4 * em, py(v), chart.tick(v), {...small, align: "right"});
  }
  for (const [i, A] of sizes.entries()) {
    const level = py(chart.uniform(A));
    pen.line([[left, level], [right, level]], LOOK.soft, 1.2, [2, 3]);
    pen.text(right - i * 7 * em, level - 0.6 * em, sizes.length > 1 ? `uniform of ${A}` : "uniform",
      {align: "right", size: 0.75, fill: LOOK.soft});
  }
  const step = Math.ceil(depth / Math.max(1, Math.floor((right - left) / (3 * em))));
  const longest = curves.find(([, values]) => values.length === depth)[0];
  for (let l = 0; l < depth; l += step) pen.text(px(l), bottom + 0.8 * em, longest.layers[l],
    {...small, align: "center"});
  pen.text((left + right) / 2, bottom + 2.2 * em, "layer", {...small, align: "center"});
  for (const [series, values, i, m] of curves) {
    const edge = sign => values.map(([v, sd], l) => [px(l), py(v + sign * sd)]);
    if (values.some(([, sd]) => sd > 0)) pen.area([...edge(1), ...edge(-1).reverse()], seriesColour(i));
    pen.line(values.map(([v], l) => [px(l), py(v)]), seriesColour(i), 2, dashOf(i));
    values.forEach(([v, sd, each], l) => {
      if (each.length > 1) for (const one of each) pen.dot(px(l), py(one), 2.2, css(LOOK.paper), seriesColour(i));
      marker(pen, px(l), py(v), 4, i);
      const of = each.length > 1 ?
        ` (${each.length} seeds: ${each.map(one => chart.tick(one) + chart.unit).join(", ")})` : "";
      const id = (i, l) => `${chart.quantity}/${i}/${l}`;
      // keys move along a curve, and from one curve to the next
      out.cells.push({id: id(i, l), x: px(l) - 6, y: py(v) - 6, w: 12, h: 12,
        to: {ArrowLeft: id(i, l - 1), ArrowRight: id(i, l + 1), ArrowUp: id(i - 1, l), ArrowDown: id(i + 1, l)},
        label: `${series.label} · ${series.layers[l]}: ${chart.label(v, series)}${of}`});
      out.rows.push({series: series.label, layer: series.layers[l], quantity: chart.quantity, value: v,
        sd_over_seeds: orNull(sd), ...provenanceOf(series, m)});
    });
  }
}
function roundStep(v) { // the round number near v that an axis is divided by
  const power = 10 ** Math.floor(Math.log10(v));
  return power * [1, 2, 2.5, 5, 10].find(step => step * power >= 0.8 * v);
}
