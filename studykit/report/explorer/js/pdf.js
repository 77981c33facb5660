// Paper figures: a pen that writes PDF, in points, with the fonts that every reader of PDF has; and a view of a width

// Widths of the signs from space to ~ in thousandths of the size, and what stands for signs that these fonts lack.
const HELVETICA = {
  false: "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 " +
    "556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 " +
    "722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 " +
    "500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584",
  true: "278 333 474 556 556 889 722 238 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 " +
    "556 333 333 584 584 584 611 975 722 722 722 722 667 611 778 722 278 556 722 611 833 722 778 667 778 " +
    "722 667 611 722 667 944 667 667 611 333 278 333 584 556 333 556 611 556 611 556 333 611 611 278 278 " +
    "556 278 889 611 611 611 611 389 556 333 611 556 778 556 556 500 389 280 389 584",
};
for (const bold of ["false", "true"]) HELVETICA[bold] = HELVETICA[bold].split(" ").map(Number);
const WINDOWS = {"–": 150, "−": 150, "—": 151, "…": 133, "“": 147, "”": 148, "’": 146, "•": 149,
  "→": 187, "↵": 182, "∅": 216};
const codesOf = text => [...text].map(sign => WINDOWS[sign] ??
  (/[\u0020-\u007e\u00a0-\u00ff]/.test(sign) ? sign.charCodeAt(0) : 63)); // 63: a question mark
const inPdf = text => `(${codesOf(text).map(code => String.fromCharCode(code)).join("").replace(/[()\\]/g, "\\$&")})`;

class PdfPen {
  constructor() { this.parts = []; this.images = []; }
  add(...words) { this.parts.push(words.map(word => typeof word === "number" ? f(word) : word).join(" ")); }
  colour(text, operator) {
    const parts = text[0] === "#" ? rgb(text) : text.match(/\d+/g).map(Number);
    this.add(...parts.map(part => part / 255), operator);
  }
  paint(fill, stroke, width) { // ends a path
    if (fill) this.colour(fill, "rg");
    if (stroke) { this.colour(stroke, "RG"); this.add(width, "w"); }
  }
  rect(x, y, w, h, fill, stroke, width = 1) {
    this.paint(fill, stroke, width);
    this.add(x, y, w, h, "re", fill ? stroke ? "B" : "f" : "S");
  }
  text(x, y, text, o = {}) {
    const size = (o.size || 0.85) * LOOK.em, widths = HELVETICA[Boolean(o.bold)], turn = o.turn || 0;
    const long = size / 1000 * codesOf(text).reduce((sum, code) => sum + (o.mono ? 600 : widths[code - 32] ?? 556), 0);
    const back = {center: long / 2, right: long}[o.align] || 0, [c, s] = [Math.cos(turn), Math.sin(turn)];
    this.colour(o.fill || LOOK.ink, "rg");
    this.add("BT", o.mono ? "/Mono" : o.bold ? "/Bold" : "/Plain", size, "Tf", c, s, s, -c,
      x - back * c - 0.35 * size * s, y - back * s + 0.35 * size * c, "Tm", inPdf(text), "Tj ET");
  }
  path(points) { points.forEach(([x, y], i) => this.add(x, y, i ? "l" : "m")); }
  line(points, stroke, width = 1, dash = []) {
    this.paint(null, stroke, width);
    this.add(`[${dash.join(" ")}] 0 d`);
    this.path(points);
    this.add("S [] 0 d");
  }
  area(points, fill) { this.polygon(points, css(mix([255, 255, 255], rgb(fill), 0.16))); }
  polygon(points, fill, stroke) {
    this.paint(fill, stroke, 1);
    this.path(points);
    this.add("h", stroke ? "B" : "f");
  }
  dot(x, y, r, fill, stroke) {
    const ring = Array.from({length: 24}, (_, i) => i * Math.PI / 12);
    this.polygon(ring.map(turn => [x + r * Math.cos(turn), y + r * Math.sin(turn)]), fill, stroke);
  }
  image(x, y, w, h, bitmap) {
    const {data} = bitmap.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height);
    let bytes = "";
    for (let i = 0; i < data.length; i += 4) bytes += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
    this.add("q", w, 0, 0, -h, x, y + h, "cm", `/Image${this.images.length}`, "Do Q");
    this.images.push([`/Type /XObject /Subtype /Image /Width ${bitmap.width} /Height ${bitmap.height} ` +
      "/ColorSpace /DeviceRGB /BitsPerComponent 8", bytes]);
  }
  bytes(w, h, words) { // the file: one page of w x h points
    const fonts = {Plain: "Helvetica", Bold: "Helvetica-Bold", Mono: "Courier"}, first = 6 + this.images.length;
    const named = this.images.map((_, i) => `/Image${i} ${6 + i} 0 R`).join(" ");
    const faces = Object.keys(fonts).map((name, i) => `/${name} ${first + i} 0 R`);
    const stream = (about, content) => `<< ${about} /Length ${content.length} >>\nstream\n${content}\nendstream`;
    const objects = ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${f(w)} ${f(h)}] /Contents 4 0 R /Resources << ` +
        `/XObject << ${named} >> /Font << ${faces.join(" ")} >> >> >>`,
      stream("", `1 0 0 -1 2 ${f(h - 2)} cm\n${this.parts.join("\n")}`),
      `<< /Title ${inPdf(D.title)} /Subject ${inPdf(words)} >>`,
      ...this.images.map(([about, content]) => stream(about, content)),
      ...Object.values(fonts).map(name =>
        `<< /Type /Font /Subtype /Type1 /BaseFont /${name} /Encoding /WinAnsiEncoding >>`)];
    let file = "%PDF-1.4\n", places = "";
    objects.forEach((object, i) => {
      places += `${String(file.length).padStart(10, "0")} 00000 n \n`;
      file += `${i + 1} 0 obj\n${object}\nendobj\n`;
    });
    file += `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${places}trailer\n` +
      `<< /Size ${objects.length + 1} /Root 1 0 R /Info 5 0 R >>\nstartxref\n${file.length}\n%%EOF\n`;
    return Uint8Array.from(file, sign => sign.charCodeAt(0));
  }
}
function pdfOf(kind) { // the view on white paper, "PDF 3.3 in" wide, with text of 8 points and without its caption
  const w = 72 * parseFloat(kind.slice(4)), root = document.documentElement, theme = root.dataset.theme;
  root.dataset.theme = "light";
  readLook();
  Object.assign(LOOK, {em: 9.4, sans: "Helvetica, Arial, sans-serif", mono: "Courier, monospace",
    paper: [255, 255, 255]});
  const pen = new PdfPen(), out = blank(false, 0), height = DRAW[S.view](pen, w - 4, out, [0, Infinity]);
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  draw();
  return pen.bytes(w, height + 4, wholeCaption(out));
}
