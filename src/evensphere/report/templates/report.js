"use strict";
// Draws the figures. Colours of text live in the style sheet, so light, dark and print need nothing here.
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = Object.entries(figures).map(([id, { data, layout }]) => {
  const plot = document.getElementById("figure-" + id);
  Plotly.newPlot(plot, data, layout, { displayModeBar: false });
  return plot;
});
const resizing = new ResizeObserver((changes) => changes.forEach(({ target }) => Plotly.Plots.resize(target)));
plots.forEach((plot) => resizing.observe(plot));
// A drawing keeps its width in pixels, so it is made to fit the paper before printing.
const widths = (paper) => plots.forEach((plot) => Plotly.relayout(plot, paper(plot)));
addEventListener("beforeprint", () => widths((plot) => ({ width: plot.closest(".pair") ? 320 : 660 })));
addEventListener("afterprint", () => widths(() => ({ width: null, autosize: true })));
