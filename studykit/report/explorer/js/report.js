"use strict";
// In a report: the address "#explorer-2:view=tokens" opens this view in its second explorer, which tells its view.
const explorers = () => [...document.querySelectorAll("iframe")].map(frame => frame.contentWindow);
const chosen = n => location.hash.startsWith(`#explorer-${n}:`) ? location.hash.slice(`#explorer-${n}:`.length) : null;
const tell = (explorer, n) => explorer.postMessage(
  {page: `${location.href.split("#")[0]}#explorer-${n}:`, explorer: chosen(n)}, "*");
addEventListener("message", event => {
  const n = explorers().indexOf(event.source) + 1, view = event.data?.explorer;
  if (n && view === null) {
    tell(event.source, n);
    if (chosen(n) !== null) document.querySelectorAll("iframe")[n - 1].scrollIntoView();
  }
  if (n && typeof view === "string") history.replaceState(null, "", `#explorer-${n}:${view}`);
});
addEventListener("hashchange", () => explorers().forEach((explorer, i) => {
  if (chosen(i + 1) === null) return;
  document.querySelectorAll("iframe")[i].scrollIntoView();
  tell(explorer, i + 1);
}));
