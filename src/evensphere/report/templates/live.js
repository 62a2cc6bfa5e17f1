"use strict";
// Loads the page anew when the runs have moved: not while nobody looks, nor while something is held or typed.
(() => {
  const { version, every } = document.body.dataset;
  const opened = () => [...document.querySelectorAll("details")].map((part) => part.open);
  const busy = () => document.hidden || document.activeElement?.matches("input, select, textarea");
  const kept = JSON.parse(sessionStorage.getItem("open") ?? "[]");
  document.querySelectorAll("details").forEach((part, i) => { part.open ||= kept[i] ?? false; });
  addEventListener("pagehide", () => sessionStorage.setItem("open", JSON.stringify(opened())));
  setInterval(async () => {
    if (busy()) return;
    try {
      const answer = await fetch("/version", { cache: "no-store" });
      if (answer.ok && (await answer.text()) !== version && !busy()) location.reload();
    } catch { /* the server is gone; the page stays */ }
  }, 1000 * every);
})();
