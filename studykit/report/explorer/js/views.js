// Views: each draws with a pen in a width, adds cells, rows and the caption to `out`, and returns its height. clip: the
// part from top to bottom that is in sight

const DRAW = {
  layers(pen, w, out) {
    const series = focus(), m = mean(series);
    if (!m) return drawMessage(pen, out, absenceReason(series));
    const shown = [[series, m]], {panels, scale, words} = panelsOf(shown);
    const y = legend(pen, 0, 0, w, scale, words) + (isRelative() ? hatchKey(pen, 2 * LOOK.em, w) : 0);
    out.caption = `Mean ${quantity()} per layer and member, in percent; the frame marks the target, ` +
      `${series.target}. ${scaleText(shown)}${provenanceText(out, shown)}` +
      (heldSamples().length ? " Click a cell, or press Enter, to see its tokens." : "");
    return y + heatmap(pen, out, 0, y, w, {...arranged(panels[0], series), roomy: out.room - y});
  },

  compare(pen, w, out) {
    const one = D.series[S.a], two = D.series[S.b], pair = paired(one, two);
    if (!pair) return drawMessage(pen, out, [one, two].filter(series => !mean(series)).map(series =>
      `${series.label}: ${absenceReason(series)}`).join("; "));
    const {m, n, change, fewer} = pair, em = LOOK.em, wide = w > 44 * em, count = change ? 3 : 2, gap = 1.2 * em;
    const pw = wide ? (w - gap * (count - 1)) / count : w, shown = [[one, m], [two, n]];
    const {panels, scale, words} = panelsOf(shown);
    const most = change && largest(change.w.map(Math.abs));
    if (change) panels.push(differenceOf(one, two, m, change, scaleOf(most, true)));
    const heads = wide ? Math.max(...panels.map(panel => titleLines(panel.title, pw).length)) : 1;
    let y = legend(pen, 0, 0, w, scale, words);
    if (change && wide) legend(pen, 2 * (pw + gap), 0, pw, panels[2].scale, "points");
    if (change || isRelative()) y += hatchKey(pen, y, w);
    let lowest = y;
    const start = y;
    panels.forEach((panel, i) => {
      if (!wide && i === 2) y += legend(pen, 0, y, w, panel.scale, "difference, points");
      const placed = {...arranged(panel, i ? two : one), heads, roomy: wide && out.room - y, id: "ab-"[i]};
      const height = heatmap(pen, out, wide ? i * (pw + gap) : 0, wide ? start : y, pw, placed);
      if (wide) lowest = Math.max(lowest, start + height); else y = lowest = y + height + gap;
    });
    out.caption = `Mean ${quantity()} in percent` +
      (change ? `, and the difference, ${two.label} less ${one.label}. ` :
        "; there is no difference, as members or layers differ. ") + scaleText(shown) +
      (S.sample >= 0 ? "" : one.same === two.same ? "Both have the same samples. " : "The samples are NOT the same. ") +
      (fewer ? "Only seeds that both have are counted. " : "") + provenanceText(out, shown);
    return lowest;
  },

  all(pen, w, out) {
    const shown = seriesOn().map(series => [series, mean(series)]).filter(([, m]) => m), em = LOOK.em;
    if (!shown.length) return drawMessage(pen, out, absenceReason(seriesOn()[0]));
    const ofSeries = panelsOf(shown), {scale, words} = ofSeries, gap = 1.2 * em;
    const panels = S.by === "run" ? ofSeries.panels.map((panel, i) => arranged(panel, shown[i][0])) :
      byMember(shown, ofSeries);
    const widest = Math.max(...panels.map(p => p.columns.length)), need = (2.4 + 1.75 * widest) * em;
    const across = clamp(Math.floor((w + gap) / (need + gap)), 1, panels.length);
    const pw = (w - gap * (across - 1)) / across;
    const heads = Math.max(...panels.map(panel => titleLines(panel.title, pw).length));
    let y = legend(pen, 0, 0, w, scale, `${words}, one scale`), tallest = 0;
    if (isRelative()) y += hatchKey(pen, y, w);
    if (S.by === "member") y += keys(pen, 0, y, w, shown.map(([series], c) => [`${c + 1} ${series.label}`]));
    panels.forEach((panel, i) => {
      if (i && i % across === 0) { y += tallest + gap; tallest = 0; }
      tallest = Math.max(tallest, heatmap(pen, out, (i % across) * (pw + gap), y, pw, {...panel, heads}));
    });
    out.caption = `Mean ${quantity()} per layer (%), on one scale` +
      (S.by === "run" ? "; the targets are framed. " : ". ") + scaleText(shown) +
      provenanceText(out, shown) + omittedText();
    return y + tallest;
  },

  depth(pen, w, out) {
    const shown = seriesOn().map(series => [series, mean(series), D.series.indexOf(series)]).filter(([, m]) => m);
    const em = LOOK.em;
    if (!shown.length) return drawMessage(pen, out, absenceReason(seriesOn()[0]));
    const y = 0.6 * em + keys(pen, 0, 0, w, shown.map(([series, , i]) => [series.label, (x, y) => {
      pen.line([[x, y], [x + 2.4 * em, y]], seriesColour(i), 2.4, dashOf(i));
      marker(pen, x + 1.2 * em, y, 4, i);
    }, 2.8 * em]));
    const own = (series, l) => l * series.members.length + series.members.indexOf(series.target);
    const share = {title: `${quantity()} on the target's own adapter (%)`, quantity: `target_${S.quantity}`,
      uniform: A => 1 / A, tick: v => String(+(100 * v).toFixed(1)), unit: " %", label: v => pct(v),
      of: (series, m, l) => series.members.includes(series.target)
        ? [m.w[own(series, l)], m.sd[own(series, l)], m.each.map(e => e.w[own(series, l)])]
        : [0, 0, m.each.map(() => 0)]};
    const entropy = {title: "entropy of a token's weights (bits)", quantity: "entropy_bits",
      uniform: A => Math.log2(A), tick: v => String(+v.toFixed(2)), unit: "",
      label: (v, series) =>
        `${v.toFixed(2)} bits, ${pct(v / Math.log2(Math.max(2, activeMembers(series))), 0)} of uniform`,
      of: (series, m, l) => [m.e[l], m.esd[l], m.each.map(e => e.e[l])]};
    const wide = w > 50 * em, cw = wide ? (w - 2 * em) / 2 : w;
    const tall = wide ? clamp(out.room - y - 4 * em, 17 * em, 30 * em) : 17 * em;
    [share, entropy].forEach((chart, i) => lines(pen, out, wide ? i * (cw + 2 * em) : 0,
      wide ? y : y + i * (tall + 4.2 * em), cw, tall, chart, shown));
    out.caption = "Lines are means over seeds, bands ± 1 sd, open points single seeds; dotted: uniform over the " +
      `members that take part. Entropy is always of the weights. ${provenanceText(out, shown)}${omittedText()}`;
    return y + (wide ? tall : 2 * tall + 4.2 * em) + 3.2 * em;
  },

  tokens(pen, w, out, clip) {
    const tracks = tokenTracks(), [here] = tracks, em = LOOK.em;
    if (here.why) return drawMessage(pen, out, here.why);
    const {text, T} = here, pinned = pinnedIn(T), detail = pinned.length > 0, beside = w > 46 * em;
    const layer = clamp(S.layer, 0, Math.min(...tracks.map(track => track.L)) - 1), stacked = S.show === "stack";
    const dw = beside ? Math.min(20 * em, w * 0.34) : w, sw = detail && beside ? w - dw - 1.5 * em : w;
    addColours(tracks);
    let y = 0;
    for (const {column, signed, series, label, scale} of tracks.filter((track, i) => // one legend for equal scales
      !tracks.slice(0, i).some(one => one.signed === track.signed && String(one.series.members) ===
        String(track.series.members)))) {
      const meaning = signed ? `${label}, points of` : `${quantity()} of`;
      y += column >= 0 ? legend(pen, 0, y, sw, scale, `${meaning} ${series.members[column]}`) :
        keys(pen, 0, y, sw, series.members.map((name, m) => [`${m + 1} ${memberLabel(series, m)}`,
          (x, y) => pen.rect(x, y - 0.5 * em, 1.1 * em, em, css(mix(LOOK.paper, rgb(memberColour(m)), 0.95))), 1.5 * em,
          name === series.target]));
    }
    for (const track of tracks) {
      if (tracks.length > 1) {
        const words = `${LETTERS[track.show]}: ${track.label}`;
        pen.text(0, y + 0.4 * em, fitted(words, sw, {size: 0.8}), {size: 0.8});
        y += 1.1 * em;
      }
      y += overview(pen, out, y, sw, track, layer, (stacked ? 5 : 9) * em) + (stacked ? 0.4 : 1) * em;
    }
    if (D.nats) y += lossBars(pen, out, y, sw, tracks, 3.2 * em) + em;
    const heading = stacked ? `${here.series.layers[layer]}, token by token` :
      `${here.series.layers[layer]}, ${here.label}`;
    pen.text(0, y + 0.6 * em, fitted(heading, sw, {bold: true}), {bold: true});
    y += 1.7 * em;
    const panels = (x, y, room) => tracks.reduce((at, track) =>
      at + tokenPanel(pen, out, x, at, dw, track, layer, room) + 0.5 * em, y) - y;
    if (detail && !beside) y += panels(0, y) + em;
    const start = y;
    y += strip(pen, out, y, sw, tracks, layer, clip);
    if (detail && beside) { // stays in sight when the text scrolls
      const at = clamp(clip[0], 0, Math.max(0, y - 10 * em));
      const room = Math.max((clip[1] - clip[0]) / tracks.length - 8 * em, 8 * em);
      y = Math.max(y, at + panels(w - dw, at, room));
    }
    if (out.full) for (const track of tracks) tokenRows(out, track, layer);
    const last = tracks.at(-1);
    out.stands = tracks.map(track => `${track.label}: checkpoint ${track.checkpoint}.`);
    out.caption = `Sample ${text.id}, ${plural(T, "token")}, ${tracks.map(track => track.label).join("; ")}: ` +
      [...new Set(tracks.map(({column, signed, series}) => column < 0 ?
        "each token has the colour and number of the member with the largest weight, paler towards uniform" :
        `each token is coloured by the ${signed ? "change of the " : ""}${quantity()} of ${series.members[column]}`))
      ].join("; ") +
      ". Underlined tokens predict the completion; outlined ones are not counted by the filters. " +
      `Single tokens are exact to ± ${last.signed ? 0.8 : 0.4} points, padding excluded. ` +
      `${matchesText(here.sample)}` +
      `${heldSamples().length} of ${last.series.n} samples can be read token by token. ` +
      (detail ? `The ${plural(pinned.length, "token")} you pinned ${pinned.length > 1 ? "are averaged" : "is shown"} ` +
        "in all layers; Shift adds a span, Ctrl one token, Esc unpins." : "Click a token to see all of its layers.");
    return Math.max(y, start);
  },
};
