// Views: each draws with a pen in a width, adds cells, rows and the caption to `out`, and returns its height. clip: the
// part from top to bottom that is in sight

const DRAW = {
  layers(pen, w, out) {
    const series = focus(), m = mean(series);
    if (!m) return drawMessage(pen, out, absenceReason(series));
    const scale = sharedScale([m.w]), y = legend(pen, 0, 0, w, scale, quantity());
    out.caption = `Mean ${quantity()} per layer and member, in percent; the frame marks the target, ` +
      `${series.target}. ${provenanceText([[series, m]])}` +
      (heldSamples().length ? " Click a cell, or press Enter, to see its tokens." : "");
    return y + heatmap(pen, out, 0, y, w, panelOf(series, m, scale));
  },

  compare(pen, w, out) {
    const one = D.series[S.a], two = D.series[S.b], pair = paired(one, two);
    if (!pair) return drawMessage(pen, out, [one, two].filter(series => !mean(series)).map(series =>
      `${series.label}: ${absenceReason(series)}`).join("; "));
    const {m, n, change, fewer} = pair, em = LOOK.em, wide = w > 44 * em, count = change ? 3 : 2, gap = 1.2 * em;
    const pw = wide ? (w - gap * (count - 1)) / count : w, scale = sharedScale([m.w, n.w]);
    const panels = [panelOf(one, m, scale), panelOf(two, n, scale)];
    const most = change && largest(change.w.map(Math.abs));
    if (change) panels.push(differenceOf(one, two, m, change, scaleOf(most, true)));
    const heads = wide ? Math.max(...panels.map(panel => titleLines(panel.title, pw).length)) : 1;
    let y = legend(pen, 0, 0, w, scale, quantity()), lowest = y;
    if (change && wide) legend(pen, 2 * (pw + gap), 0, pw, panels[2].scale, "points");
    const start = y;
    panels.forEach((panel, i) => {
      if (!wide && i === 2) y += legend(pen, 0, y, w, panel.scale, "difference, points");
      const placed = {...panel, heads, id: "ab-"[i]};
      const height = heatmap(pen, out, wide ? i * (pw + gap) : 0, wide ? start : y, pw, placed);
      if (wide) lowest = Math.max(lowest, start + height); else y = lowest = y + height + gap;
    });
    out.caption = `Mean ${quantity()} in percent` +
      (change ? `, and the difference, ${two.label} less ${one.label}. ` :
        "; there is no difference, as members or layers differ. ") +
      (S.sample >= 0 ? "" : one.same === two.same ? "Both have the same samples. " : "The samples are NOT the same. ") +
      (fewer ? "Only seeds that both have are counted. " : "") + provenanceText([[one, m], [two, n]]);
    return lowest;
  },

  all(pen, w, out) {
    const shown = D.series.map(series => [series, mean(series)]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return drawMessage(pen, out, absenceReason(D.series[0]));
    const scale = sharedScale(shown.map(([, m]) => m.w)), gap = 1.2 * em;
    const panels = S.by === "run" ? shown.map(([series, m]) => panelOf(series, m, scale)) : byMember(shown, scale);
    const widest = Math.max(...panels.map(p => p.columns.length)), need = (3 + 2.5 * widest) * em;
    const across = clamp(Math.floor((w + gap) / (need + gap)), 1, panels.length);
    const pw = (w - gap * (across - 1)) / across;
    const heads = Math.max(...panels.map(panel => titleLines(panel.title, pw).length));
    let y = legend(pen, 0, 0, w, scale, `${quantity()}, one scale`), tallest = 0;
    if (S.by === "member") y += keys(pen, 0, y, w, shown.map(([series], c) => [`${c + 1} ${series.label}`]));
    panels.forEach((panel, i) => {
      if (i && i % across === 0) { y += tallest + gap; tallest = 0; }
      tallest = Math.max(tallest, heatmap(pen, out, (i % across) * (pw + gap), y, pw, {...panel, heads}));
    });
    out.caption = `Mean ${quantity()} per layer in percent, every panel on one scale` +
      (S.by === "run" ? "; frames mark the targets. " : ". ") + provenanceText(shown) + omittedText();
    return y + tallest;
  },

  depth(pen, w, out) {
    const shown = D.series.map((series, i) => [series, mean(series), i]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return drawMessage(pen, out, absenceReason(D.series[0]));
    const y = 0.6 * em + keys(pen, 0, 0, w, shown.map(([series, , i]) => [series.label, (x, y) => {
      pen.line([[x, y], [x + 2.4 * em, y]], seriesColour(i), 2.4, DASH[i % DASH.length]);
      marker(pen, x + 1.2 * em, y, 4, i);
    }, 2.8 * em]));
    const own = (series, l) => l * series.members.length + series.members.indexOf(series.target);
    const share = {title: `${quantity()} on the target's own adapter (%)`, quantity: `target_${S.quantity}`,
      uniform: A => 1 / A, tick: v => String(+(100 * v).toFixed(1)), unit: " %", label: v => pct(v),
      of: (series, m, l) => series.members.includes(series.target)
        ? [m.w[own(series, l)], m.sd[own(series, l)], m.each.map(e => e.w[own(series, l)])] : [0, 0, m.each.map(() => 0)]};
    const entropy = {title: "entropy of a token's weights (bits)", quantity: "entropy_bits",
      uniform: A => Math.log2(A), tick: v => String(+v.toFixed(2)), unit: "",
      label: (v, series) =>
        `${v.toFixed(2)} bits, ${pct(v / Math.log2(Math.max(2, activeMembers(series))), 0)} of uniform`,
      of: (series, m, l) => [m.e[l], m.esd[l], m.each.map(e => e.e[l])]};
    const wide = w > 50 * em, cw = wide ? (w - 2 * em) / 2 : w, tall = 17 * em;
    [share, entropy].forEach((chart, i) => lines(pen, out, wide ? i * (cw + 2 * em) : 0,
      wide ? y : y + i * (tall + 4.2 * em), cw, tall, chart, shown));
    out.caption = "Lines are means over seeds, bands ± 1 sd, open points single seeds; dotted: uniform over the " +
      `members that take part. Entropy is always of the weights. ${provenanceText(shown)}${omittedText()}`;
    return y + (wide ? tall : 2 * tall + 4.2 * em) + 3.2 * em;
  },

  tokens(pen, w, out, clip) {
    const here = tokensOf();
    if (here.why) return drawMessage(pen, out, here.why);
    const {series, text, T, L, A, of, label, signed} = here, em = LOOK.em;
    const member = S.colour === "winner" || +S.colour >= A ? -1 : +S.colour;
    const column = member < 0 && signed ? series.members.indexOf(series.target) : member;
    const scale = signed || S.scale !== "full" ? scaleOf(here.most(Math.max(column, 0)), signed) : scaleOf(1);
    const colour = column >= 0 ? (l, t) => scale.colour(of(l, t, column)) : (l, t) => {
      const best = here.winner(l, t), strength = A < 2 ? 1 : clamp((of(l, t, best) - 1 / A) / (1 - 1 / A), 0, 1);
      return mix(LOOK.paper, rgb(memberColour(best)), 0.2 + 0.75 * strength);
    };
    const layer = clamp(S.layer, 0, L - 1), detail = S.token >= 0 && S.token < T, beside = w > 46 * em;
    const dw = beside ? Math.min(20 * em, w * 0.34) : w, sw = detail && beside ? w - dw - 1.5 * em : w;
    const look = {...here, colour, column, layer};
    const meaning = signed ? `${label}, points of` : `${quantity()} of`;
    let y = column >= 0 ? legend(pen, 0, 0, sw, scale, `${meaning} ${series.members[column]}`) :
      keys(pen, 0, 0, sw, series.members.map((name, m) => [`${m + 1} ${memberLabel(series, m)}`,
        (x, y) => pen.rect(x, y - 0.5 * em, 1.1 * em, em, css(mix(LOOK.paper, rgb(memberColour(m)), 0.95))), 1.5 * em,
        name === series.target]));
    y += overview(pen, out, y, sw, look) + em;
    pen.text(0, y + 0.4 * em, fitted(`${series.layers[layer]}, ${label}`, sw, {bold: true}), {bold: true});
    y += 1.5 * em;
    if (detail && !beside) y += tokenPanel(pen, out, 0, y, dw, look) + em;
    const start = y;
    y += strip(pen, out, y, sw, look, clip);
    if (detail && beside) { // stays in sight when the text scrolls
      const at = clamp(clip[0], 0, Math.max(0, y - 10 * em)), room = Math.max(clip[1] - clip[0] - 8 * em, 8 * em);
      y = Math.max(y, at + tokenPanel(pen, out, w - dw, at, dw, look, room));
    }
    if (out.full) tokenRows(out, look, detail);
    out.caption = `Sample ${text.id}, ${plural(T, "token")}, ${label}: ` +
      (column < 0 ? "each token has the colour and number of the member with the largest weight, paler towards uniform"
        :
        `each token is coloured by the ${signed ? "change of the " : ""}${quantity()} of ${series.members[column]}`) +
      ". Underlined tokens predict the completion; outlined ones are not counted by the filters. " +
      `Single tokens are exact to ± ${signed ? 0.8 : 0.4} points. Checkpoint ${here.checkpoint}, padding excluded. ` +
      matchesText(here.sample) + `${heldSamples().length} of ${series.n} samples can be read token by token. ` +
      "Click a token to see all of its layers.";
    return Math.max(y, start);
  },
};

