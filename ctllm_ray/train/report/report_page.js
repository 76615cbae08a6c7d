"use strict";
// The line that reads all charts at one place; the page is complete without it.
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("places").textContent);
  const scrubs = [...document.querySelectorAll(".scrub")];
  const reads = [...document.querySelectorAll("[data-read]")];
  const last = data.at.length - 1;
  let here = last;

  const nearest = (share) => {
    let low = 0, high = last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.at[middle] < share) low = middle + 1; else high = middle;
    }
    return low > 0 && share - data.at[low - 1] < data.at[low] - share ? low - 1 : low;
  };
  const read = (place) => {
    here = Math.min(last, Math.max(0, place));
    root.style.setProperty("--at", `${100 * data.at[here]}%`);
    for (const r of reads) {
      const value = Object.assign(document.createElement("b"), { textContent: data.values[r.dataset.read][here] });
      r.replaceChildren(`${data.where[here]} · `, value);
    }
    for (const f of scrubs) {
      f.setAttribute("aria-valuenow", String(here));
      f.setAttribute("aria-valuetext", `${data.where[here]}: ${data.values[f.dataset.key][here]}`);
    }
  };
  for (const f of scrubs) {
    f.tabIndex = 0;
    f.setAttribute("role", "slider");
    f.setAttribute("aria-valuemin", "0");
    f.setAttribute("aria-valuemax", String(last));
    f.parentElement.addEventListener("pointermove", (event) => {
      const box = f.getBoundingClientRect();
      root.classList.add("reading");
      read(nearest((event.clientX - box.left) / box.width));
    });
    f.parentElement.addEventListener("pointerleave", () => root.classList.remove("reading"));
    f.addEventListener("focus", () => root.classList.add("reading"));
    f.addEventListener("blur", () => root.classList.remove("reading"));
    f.addEventListener("keydown", (event) => {
      const jump = event.shiftKey ? 10 : 1;
      const to = { ArrowLeft: here - jump, ArrowRight: here + jump, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      root.classList.add("reading");
      read(to);
    });
  }
  read(last);

  // A mark on a curve leads to its event, whose documents are then shown.
  const unfold = () => {
    const row = location.hash.startsWith("#event-") && document.getElementById(location.hash.slice(1));
    for (const d of row ? row.querySelectorAll("details") : []) d.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
