"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // The records of the run as a file, for those who want to look closer.
  const save = document.getElementById("save-records");
  save.addEventListener("click", () => {
    const text = document.getElementById("records").textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "dfd-edge-records.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const charts = [...document.querySelectorAll(".chart")];
  if (!charts.length) return;

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const scheme = () => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    "font.color": colour("--ink"),
    "font.family": "system-ui, sans-serif",
    "xaxis.gridcolor": colour("--line"),
    "yaxis.gridcolor": colour("--line"),
    "hoverlabel.bgcolor": colour("--card"),
    "hoverlabel.bordercolor": colour("--line"),
  });
  // A finger that moves over a chart scrolls the page.
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();

  const draw = async (chart) => {
    if (drawn.has(chart)) return;
    drawn.add(chart);
    const figure = JSON.parse(document.getElementById(chart.dataset.figure).textContent);
    if (touch) {
      figure.layout.dragmode = false;
      figure.layout.xaxis.fixedrange = figure.layout.yaxis.fixedrange = true;
    }
    chart.textContent = "";
    await Plotly.newPlot(chart, figure.data, figure.layout, {
      responsive: true,
      displayModeBar: false,
    });
    await Plotly.relayout(chart, scheme());
  };

  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "600px" },
  );
  charts.forEach((chart) => seen.observe(chart));
  const recolour = () => drawn.forEach((chart) => Plotly.relayout(chart, scheme()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  matchMedia("print").addEventListener("change", recolour);
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => (details.open = true));
    charts.forEach(draw);
    drawn.forEach((chart) => Plotly.Plots.resize(chart));
  });
})();
