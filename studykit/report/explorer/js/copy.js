// Copies: the numbers of a view as tables in Markdown or LaTeX, and the line of Python that opens it

function tablesOf(rows) { // {title, columns, lines: [[name, values]]} for each block of rows; values in the text's unit
  const blocks = new Map();
  for (const row of rows) {
    const share = [`against_${S.scale}`, `${S.quantity}_difference`, S.quantity].find(name => row[name] !== undefined);
    const title = [row.series, row.quantity, row.token === undefined ? "" : row.layer].filter(Boolean).join(", ");
    const depth = row.quantity !== undefined, block = depth ? row.quantity : title;
    const line = row.token !== undefined ? `${row.position} ${visible(row.token)}` :
      S.view === "kinds" ? row.kind : row.layer, column = depth ? row.series : row.member;
    const value = share ? 100 * row[share] : /^target/.test(row.quantity) ? 100 * row.value : row.value;
    if (!blocks.has(block)) blocks.set(block, {columns: new Set(), lines: new Map()});
    const {columns, lines} = blocks.get(block), text = Number.isFinite(value) ? value.toFixed(share ? 1 : 2) : "–";
    columns.add(column);
    if (!lines.has(line)) lines.set(line, new Map());
    lines.get(line).set(column, text.replace(/^-/, "−"));
  }
  return [...blocks].map(([title, {columns, lines}]) => ({title, columns: [...columns],
    lines: [...lines].map(([name, values]) => [name, [...columns].map(column => values.get(column) ?? "–")])}));
}
const inMarkdown = text => text.replace(/\s+/g, " ").replace(/[\\|`*_<>&$~]/g, "\\$&");
const TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--"};
const inTex = text => [...text.replace(/\s+/g, " ")].map(
  sign => TEX[sign] ?? (/[#$%&_{}]/.test(sign) ? `\\${sign}` : sign)).join("");
const COPIES = { // by the name of the choice: the text for a view's rows and caption
  Markdown: whole => tablesOf(whole.rows).map(({title, columns, lines}) => [`**${inMarkdown(title)}**`, "",
    `| | ${columns.map(inMarkdown).join(" | ")} |`, `|---|${columns.map(() => "---:|").join("")}`,
    ...lines.map(([name, values]) => `| ${inMarkdown(name)} | ${values.join(" | ")} |`), ""].join("\n"))
    .join("\n") + `\n${inMarkdown(wholeCaption(whole))}\n`,
  LaTeX: whole => tablesOf(whole.rows).map(({title, columns, lines}) => [`% ${title.replace(/\s+/g, " ")}`,
    `\\begin{tabular}{l${"r".repeat(columns.length)}}`, "\\toprule",
    ` & ${columns.map(inTex).join(" & ")} \\\\`, "\\midrule",
    ...lines.map(([name, values]) => `${inTex(name)} & ${values.map(inTex).join(" & ")} \\\\`),
    "\\bottomrule", "\\end{tabular}", ""].join("\n")).join("\n") + `% ${wholeCaption(whole).replace(/\s+/g, " ")}\n`,
  ...D.call ? {Python: () => pythonLine()} : {}, // of records that lie in no file, there is no such line
};
