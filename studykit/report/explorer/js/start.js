// The start: checks of all records, then the first drawing

const faultTexts = faults(), largestError = Math.max(...D.series.flatMap(series => series.records.map(r => r.error)));
check.textContent = faultTexts.length ? `These weights cannot be right: ${faultTexts.join("; ")}.` :
  "Checked: in every record the weights of each token add up to 1 " +
    `(largest difference ${largestError.toExponential(0)})` +
    (D.series.some(series => series.mask === "exclude") ? ", excluded members have exactly 0." : ".");
check.classList.toggle("wrong", faultTexts.length > 0);
if (faultTexts.length) check.setAttribute("role", "alert");
refresh();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
