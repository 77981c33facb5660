// Pens: CanvasPen paints on the canvas, SvgPen writes SVG; both have the same methods

const f = x => +x.toFixed(2);
const notXml = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/gu; // characters that XML forbids, and pairs of surrogates
const esc = text => String(text).replace(notXml, sign => sign.length > 1 ? sign : "\ufffd")
  .replace(/[&<>"']/g, sign => `&#${sign.charCodeAt(0)};`);
const ruler = document.createElement("canvas").getContext("2d");
const fontOf = o => `${o.bold ? "600 " : ""}${(o.size || 0.85) * LOOK.em}px ${o.mono ? LOOK.mono : LOOK.sans}`;
function widthOf(text, o = {}) { ruler.font = fontOf(o); return ruler.measureText(text).width; }
function fitted(text, width, o = {}) { // the text or, if it is too wide, its beginning with an ellipsis
  if (widthOf(text, o) <= width) return text;
  let n = text.length;
  while (n > 1 && widthOf(text.slice(0, n) + "…", o) > width) n -= 1;
  return text.slice(0, n) + "…";
}

class CanvasPen {
  constructor(context) { this.c = context; }
  rect(x, y, w, h, fill, stroke, width = 1) {
    if (fill) { this.c.fillStyle = fill; this.c.fillRect(x, y, w, h); }
    if (stroke) { this.c.strokeStyle = stroke; this.c.lineWidth = width; this.c.strokeRect(x, y, w, h); }
  }
  text(x, y, text, o = {}) {
    Object.assign(this.c, {font: fontOf(o), fillStyle: o.fill || LOOK.ink, textBaseline: "middle",
      textAlign: o.align || "left"});
    if (!o.turn) return this.c.fillText(text, x, y);
    this.c.save(); this.c.translate(x, y); this.c.rotate(o.turn); this.c.fillText(text, 0, 0); this.c.restore();
  }
  path(points) {
    this.c.beginPath();
    points.forEach(([x, y], i) => i ? this.c.lineTo(x, y) : this.c.moveTo(x, y));
  }
  line(points, stroke, width = 1, dash = []) {
    this.path(points);
    this.c.strokeStyle = stroke; this.c.lineWidth = width;
    this.c.setLineDash(dash); this.c.stroke(); this.c.setLineDash([]);
  }
  area(points, fill) {
    this.path(points);
    this.c.globalAlpha = 0.16; this.c.fillStyle = fill; this.c.fill(); this.c.globalAlpha = 1;
  }
  polygon(points, fill, stroke) {
    this.path(points);
    this.c.closePath(); this.c.fillStyle = fill; this.c.fill();
    this.c.strokeStyle = stroke; this.c.lineWidth = 1.3; this.c.stroke();
  }
  dot(x, y, r, fill, stroke) {
    this.c.beginPath(); this.c.arc(x, y, r, 0, 7); this.c.fillStyle = fill; this.c.fill();
    if (stroke) { this.c.strokeStyle = stroke; this.c.lineWidth = 1.3; this.c.stroke(); }
  }
  image(x, y, w, h, bitmap) { this.c.imageSmoothingEnabled = false; this.c.drawImage(bitmap, x, y, w, h); }
}

const pointsOf = points => points.map(point => point.map(f).join(",")).join(" ");
class SvgPen {
  constructor() { this.parts = []; }
  rect(x, y, w, h, fill, stroke, width = 1) {
    this.parts.push(`<rect x="${f(x)}" y="${f(y)}" width="${f(w)}" height="${f(h)}" fill="${fill || "none"}"` +
      (stroke ? ` stroke="${stroke}" stroke-width="${width}"/>` : "/>"));
  }
  text(x, y, text, o = {}) {
    const anchor = {center: "middle", right: "end"}[o.align] || "start", size = (o.size || 0.85) * LOOK.em;
    this.parts.push(`<text x="${f(x)}" y="${f(y)}" dy=".35em" xml:space="preserve" text-anchor="${anchor}"` +
      ` font-size="${f(size)}" font-family="${esc(o.mono ? LOOK.mono : LOOK.sans)}" fill="${o.fill || LOOK.ink}"` +
      (o.bold ? ' font-weight="600"' : "") +
      (o.turn ? ` transform="rotate(${f(o.turn * 180 / Math.PI)} ${f(x)} ${f(y)})"` : "") + `>${esc(text)}</text>`);
  }
  line(points, stroke, width = 1, dash = []) {
    this.parts.push(`<polyline points="${pointsOf(points)}" fill="none" stroke="${stroke}"` +
      ` stroke-width="${width}"${dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : ""}/>`);
  }
  area(points, fill) {
    this.parts.push(`<polygon points="${pointsOf(points)}" fill="${fill}" fill-opacity="0.16"/>`);
  }
  polygon(points, fill, stroke) {
    this.parts.push(`<polygon points="${pointsOf(points)}" fill="${fill}" stroke="${stroke}" stroke-width="1.3"/>`);
  }
  dot(x, y, r, fill, stroke) {
    this.parts.push(`<circle cx="${f(x)}" cy="${f(y)}" r="${r}" fill="${fill}"` +
      (stroke ? ` stroke="${stroke}" stroke-width="1.3"/>` : "/>"));
  }
  image(x, y, w, h, bitmap) {
    this.parts.push(`<image x="${f(x)}" y="${f(y)}" width="${f(w)}" height="${f(h)}" preserveAspectRatio="none"` +
      ` style="image-rendering: pixelated" href="${bitmap.toDataURL()}"/>`);
  }
}
// A pen that draws nothing, for measuring the height of a view.
const SILENT = new Proxy({}, {get: () => () => {}});
