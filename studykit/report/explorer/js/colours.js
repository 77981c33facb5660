// Colours

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const css = c => `rgb(${c.map(Math.round).join(",")})`;
const mix = (a, b, f) => a.map((x, i) => x + (b[i] - x) * f);
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
function along(stops, f) {
  const at = clamp(f || 0, 0, 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[i], stops[i + 1], at - i);
}
function inkOn(c) {
  const [r, g, b] = c.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}
let LOOK; // colours, scales and fonts of the theme, read before each drawing
function readLook() {
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue("--" + name).trim();
  const dark = of("dark") === "1", paper = rgb(of("paper"));
  const sequential = D.colours.sequential.map(rgb), diverging = D.colours.diverging.map(rgb);
  // on dark paper the scales are reversed: small values are dark, large ones light
  const ends = [rgb("#ffb757"), rgb("#a9b8ff")], nothing = mix(paper, [255, 255, 255], 0.06);
  const turned = diverging.map((_, i) => {
    const f = 2 * i / (diverging.length - 1) - 1;
    return mix(nothing, ends[f > 0 ? 0 : 1], Math.abs(f));
  });
  const body = getComputedStyle(document.body);
  LOOK = {dark, paper, ink: of("ink"), soft: of("soft"), line: of("line"), accent: of("accent"),
    sequential: dark ? [...sequential].reverse() : sequential, diverging: dark ? turned : diverging,
    em: parseFloat(body.fontSize), sans: body.fontFamily, mono: of("mono")};
}
const DASH = [[], [7, 4], [8, 3, 2, 3], [2, 3], [10, 3], [6, 2, 2, 2, 2, 2], [2, 1], [14, 4]];
const LIGHTER = {"#000000": "#ffffff", "#666666": "#a0a0a0"}; // instead of colours that are too dark on dark paper
const onPaper = hex => LOOK.dark ? LIGHTER[hex] ?? hex : hex;
const memberColour = i => onPaper(D.colours.members[i % D.colours.members.length]);
const hex = c => `#${c.map(v => Math.round(v).toString(16).padStart(2, "0")).join("")}`;
// The states of a method have its colour: paler before training, and in phase 1 hollow under a mask, else pale inside
const paler = (colour, by) => hex(mix(rgb(colour), LOOK.paper, by));
function seriesColour(i) {
  const {colour, phase} = D.series[i];
  return phase === "init" ? paler(onPaper(colour), 0.45) : onPaper(colour);
}
function seriesFill(i) {
  const {filled, masked} = D.series[i];
  return filled ? seriesColour(i) : masked.length ? css(LOOK.paper) : paler(seriesColour(i), 0.6);
}
function dashOf(i) { // the last state of a method has a solid line
  const states = D.series.filter(one => group(one.label) === group(D.series[i].label));
  return DASH[(states.length - 1 - states.indexOf(D.series[i])) % DASH.length];
}
function scaleOf(most, signed = false) {
  const colour = v => Number.isNaN(v) ? LOOK.paper :
    signed ? along(LOOK.diverging, 0.5 + v / most / 2) : along(LOOK.sequential, v / most);
  return {most, signed, colour};
}
const largest = values => values.reduce((most, v) => v > most ? v : most, 0.01);
const sharedScale = matrices => scaleOf(S.scale === "full" ? 1 : Math.max(...matrices.map(largest)));
