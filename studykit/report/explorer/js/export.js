// Export: rows as CSV or JSON, the view as SVG or PNG

function save(kind) {
  const name = `fusion-${S.view}-${focus().label}`.replace(/[^\w-]+/g, "_").slice(0, 80);
  const download = blob => {
    const link = make("a", {href: URL.createObjectURL(blob), download: `${name}.${kind.toLowerCase().split(" ")[0]}`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 4000);
  };
  const w = stage.clientWidth - 4, whole = blank(true);
  const height = DRAW[S.view](SILENT, w, whole, [0, Infinity]) + 2 * LOOK.em;
  if (COPIES[kind]) copyText(COPIES[kind](whole));
  else if (kind.startsWith("PDF")) download(new Blob([pdfOf(kind)], {type: "application/pdf"}));
  else if (kind === "CSV") download(new Blob([csv(whole.rows)], {type: "text/csv"}));
  else if (kind === "JSON") download(new Blob([JSON.stringify(exported(whole), null, 1)], {type: "application/json"}));
  else savePicture(kind, w, height, wholeCaption(whole), download);
}
const columnsOf = rows => [...new Set(rows.flatMap(Object.keys))]; // a row may lack some
function csv(rows) { // with an apostrophe before text that a spreadsheet would compute
  const field = value => typeof value === "number" ? String(value) :
    `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const names = columnsOf(rows);
  return [names.join(","), ...rows.map(row => names.map(name => field(row[name])).join(","))].join("\n") + "\n";
}
function exported(whole) { // the rows, and the choices, series and runs that they are from
  const shown = {training: [], layers: [focus()], kinds: [focus()], compare: [D.series[S.a], D.series[S.b]],
    tokens: ["stack", "diff"].includes(S.show) ? [D.series[S.a], D.series[S.b]] : [focus()]}[S.view] || seriesOn();
  const runs = records => records.map(({seed, checkpoint, base}) => ({seed, checkpoint, base}));
  const series = shown.map(({label, method, phase, placement, target, mask, masked, n, records}) =>
    ({label, method, phase, placement, target, mask, masked, samples: n, records: runs(records)}));
  const sample = S.view === "tokens" ? tokenTracks()[0].sample ?? S.sample : S.sample;
  return {title: D.title, view: S.view, quantity: S.quantity, tokens: S.pool, seed: S.seed,
    kind: kindsText(), sample: sample < 0 ? "all" : D.texts[sample].id,
    caption: wholeCaption(whole), series, rows: whole.rows};
}
function linesOf(words, w) { // a text in lines of a width
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && widthOf(longer) < w) lines[lines.length - 1] = longer; else lines.push(word);
  }
  return lines;
}
function savePicture(kind, w, height, words, download) { // the view, with its caption below
  const em = LOOK.em, lines = linesOf(words, w);
  const tall = height + lines.length * 1.3 * em, paper = css(LOOK.paper);
  const paint = pen => {
    DRAW[S.view](pen, w, blank(false), [0, Infinity]);
    lines.forEach((line, i) => pen.text(0, height + i * 1.3 * em, line, {fill: LOOK.soft}));
  };
  if (kind === "SVG") {
    const pen = new SvgPen(), size = `width="${f(w + 8)}" height="${f(tall + 8)}"`;
    paint(pen);
    const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 ${f(w + 8)} ${f(tall + 8)}" ${size}>`;
    download(new Blob([`${head}<title>${esc(words)}</title><rect x="-4" y="-4" ${size} fill="${paper}"/>`,
      pen.parts.join("\n"), "</svg>"], {type: "image/svg+xml"}));
  } else {
    const sheet = document.createElement("canvas"), factor = Math.min(2, 16000 / tall);
    sheet.width = (w + 8) * factor; sheet.height = (tall + 8) * factor;
    const context = sheet.getContext("2d"), pen = new CanvasPen(context);
    context.scale(factor, factor); context.translate(4, 4);
    pen.rect(-4, -4, w + 8, tall + 8, paper);
    paint(pen);
    sheet.toBlob(download, "image/png");
  }
}
