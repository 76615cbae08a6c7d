"use strict";
// The language switch of the reports; a page is complete without it.
(() => {
  const root = document.documentElement;
  const buttons = document.querySelectorAll("[data-set-lang]");
  const speak = (lang) => {
    root.dataset.lang = lang;
    root.lang = lang === "zh" ? "zh-Hans" : "en";
    for (const b of buttons) b.setAttribute("aria-pressed", String(b.dataset.setLang === lang));
  };
  const kept = () => { try { return localStorage.getItem("ctllm-lang"); } catch { return null; } };
  for (const b of buttons) {
    b.addEventListener("click", () => {
      speak(b.dataset.setLang);
      try { localStorage.setItem("ctllm-lang", b.dataset.setLang); } catch { /* a file:// page may have no storage */ }
    });
  }
  const wanted = new URLSearchParams(location.search).get("lang") ?? kept();
  speak(wanted === "en" ? "en" : "zh");
})();
