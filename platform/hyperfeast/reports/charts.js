// Draws the charts of the report in the page's colors, and again when those change:
// by the reader's preference for dark, or light for paper.
(() => {
  "use strict";
  const { figures, darkTwins } = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const PAPER_WIDTH = 640; // px: fits the text width of A4 and of letter
  let onPaper = false;

  const recolored = (value) => {
    if (typeof value === "string") return darkTwins[value] ?? value;
    if (Array.isArray(value)) return value.map(recolored);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, held]) => [key, recolored(held)]));
  };

  const draw = () => {
    for (const [id, figure] of Object.entries(figures)) {
      const { data, layout } = dark.matches && !onPaper ? recolored(figure) : structuredClone(figure);
      const element = document.getElementById(id);
      // The sheet's own layout comes after this event: the chart keeps its height through it.
      element.style.minHeight = onPaper ? `${element.clientHeight}px` : "";
      if (onPaper) layout.width = PAPER_WIDTH;
      // A finger that drags across a chart means to scroll the page.
      layout.dragmode = touch.matches ? false : "zoom";
      const config = { displayModeBar: false, responsive: true, showTips: false };
      Plotly.react(element, data, layout, config);
    }
  };

  const toPaper = () => {
    onPaper = true;
    draw();
  };

  const toScreen = () => {
    onPaper = false;
    draw();
    // A redraw keeps the width it had on paper.
    for (const id of Object.keys(figures)) Plotly.Plots.resize(document.getElementById(id));
  };

  draw();
  dark.addEventListener("change", draw);
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", toScreen);
})();
