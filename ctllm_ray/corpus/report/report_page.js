"use strict";
// What a bar of a histogram stands for, and folded parts that an address opens. The page is complete without it.
(() => {
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const words = JSON.parse(document.getElementById("tip-words").textContent);
  const number = (v) => v.toLocaleString("en-US", { maximumSignificantDigits: 4 });
  const count = (v) => v.toLocaleString("en-US");

  const line = (cls, label, value) => {
    const row = document.createElement("div");
    row.className = cls;
    row.append(label, Object.assign(document.createElement("b"), { textContent: value }));
    return row;
  };
  const show = (svg, event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const places = JSON.parse(svg.dataset.x);
    const i = places.findIndex(([a, b]) => x >= a && x <= b);
    if (i < 0) { tip.hidden = true; return; }
    const [low, high, kept, charged, other] = JSON.parse(svg.dataset.bins)[i];
    const lang = root.dataset.lang;
    const range = low === null ? `< ${number(high)}` : high === null ? `> ${number(low)}` : `${number(low)} – ${number(high)}`;
    tip.replaceChildren(
      line("range", "", range),
      line("kept", words.kept[lang], count(kept)),
      line("charged", words.charged[lang], count(charged)),
      line("other", words.other[lang], count(other)),
    );
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 14)}px`;
  };
  for (const svg of document.querySelectorAll("svg.hist[data-bins]")) {
    svg.addEventListener("pointermove", (event) => show(svg, event));
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // An address with #rule-... opens the folded part it stands in.
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();
})();
