// The results tab: what the model that answers here scores on the recipe's tasks, begun and watched from this page.

import { api, explain, post } from "./api.js";
import { $, both, make, put, told, whole } from "./words.js";

const STATES = { queued: ["排队", "Queued"], running: ["进行中", "Running"], done: ["完成", "Done"], failed: ["失败", "Failed"], cancelled: ["已取消", "Cancelled"] };
const ASKED = { scores: ["选项打分", "scoring choices"], answers: ["作答", "writing answers"], verdicts: ["评委打分", "judging answers"] };
const LOOK_MS = 2000; // between looks while something goes on
let timer = null;
let shown = false;

/** True where this server evaluates: the tab is worth a link. */
export async function offered() {
  return api("v1/evaluations").then((r) => r.json()).then((found) => found.tasks.length > 0).catch(() => false);
}

/** The tab is in view, or no longer. */
export function look(now) {
  shown = now;
  clearTimeout(timer);
  if (shown) refresh();
}

async function refresh() {
  clearTimeout(timer);
  let found;
  try {
    found = await (await api("v1/evaluations")).json();
  } catch (error) {
    explain($("evaluations-trouble"), error);
    return;
  }
  put($("evaluations-trouble"));
  $("offered").replaceChildren(...found.tasks.map((task) => told("span", task, { className: "chip" })));
  const open = new Set([...document.querySelectorAll("#evaluated details[open]")].map((d) => d.dataset.of));
  $("evaluated").replaceChildren(...found.data.map(evaluation));
  for (const d of document.querySelectorAll("#evaluated details")) d.open = open.has(d.dataset.of);
  $("none-yet").hidden = found.data.length > 0;
  const going = found.data.some((one) => one.status === "queued" || one.status === "running");
  if (shown && going) timer = setTimeout(refresh, LOOK_MS);
}

async function deed(path, body) {
  try {
    await post(path, body);
  } catch (error) {
    explain($("evaluations-trouble"), error);
    return;
  }
  await refresh();
}

function evaluation(one) {
  const over = ["done", "failed", "cancelled"].includes(one.status);
  const head = make("p", { className: "row head" }, make("b", { className: `state ${one.status}` }, both(...STATES[one.status])), make("time", { textContent: new Date(1000 * one.created).toLocaleString("sv") }));
  head.append(make("span", { className: "note" }, one.limit ? both(`每项最多 ${whole(one.limit)} 题`, `at most ${whole(one.limit)} items of each part`) : both("全部题目", "all items")));
  if (!over) head.append(make("button", { type: "button", className: "plain", onclick: () => deed(`v1/evaluations/${encodeURIComponent(one.id)}/cancel`, {}) }, both("取消", "Cancel")));
  const card = make("article", { className: "evaluation", id: one.id }, head);
  if (one.status === "running") card.append(progress(one));
  if (one.error) card.append(told("p", one.error, { className: "said" }));
  if (one.scores.length) card.append(...tables(one));
  return card;
}

function progress(one) {
  const [zh, en] = ASKED[one.asked] ?? ["准备", "preparing"];
  const bar = make("progress", { max: one.total || 1, value: one.answered });
  return make("p", { className: "row" }, bar, make("span", { className: "note" }, both(`${zh} ${whole(one.answered)} / ${whole(one.total)}`, `${en} ${whole(one.answered)} / ${whole(one.total)}`)));
}

function tables(one) {
  const wholes = one.scores.filter((score) => !score.part);
  const table = (scores, name) => make("div", { className: "scroll" }, make("table", { className: "scores" }, head(), make("tbody", {}, ...scores.map((score) => row(score, score[name])))));
  const parts = wholes.flatMap(({ benchmark, parts_mean: mean }) => {
    const of = one.scores.filter((score) => score.part && score.benchmark === benchmark);
    if (!of.length) return [];
    const title = make("summary", {}, told("bdi", benchmark), both(`：${of.length} 个分项，平均 ${number(of[0], mean)}`, `: ${of.length} parts, mean ${number(of[0], mean)}`));
    const details = make("details", {}, title, table(of, "part"));
    details.dataset.of = `${one.id} ${benchmark}`;
    return [details];
  });
  return [table(wholes, "benchmark"), ...parts];
}

function head() {
  const names = [["测试", "Benchmark"], ["得分", "Score"], ["95 % 区间", "95 % interval"], ["", ""], ["随机", "Chance"], ["题数", "Items"]];
  return make("thead", {}, make("tr", {}, ...names.map((name, i) => make("th", { scope: "col", className: i ? "num" : "" }, both(...name)))));
}

function row(score, name) {
  const cell = (...children) => make("td", { className: "num" }, ...children);
  const counts = cell(score.scored < score.items ? `${whole(score.scored)} / ${whole(score.items)}` : whole(score.items));
  if (score.too_long) counts.append(make("span", { className: "lost" }, both(`${whole(score.too_long)} 题超出上下文`, `${whole(score.too_long)} too long`)));
  if (score.unparsable) counts.append(make("span", { className: "lost" }, both(`${whole(score.unparsable)} 份评语无分数`, `${whole(score.unparsable)} without a mark`)));
  const interval = score.low === null ? "–" : `${number(score, score.low)} – ${number(score, score.high)}`;
  return make("tr", {}, told("th", name, { scope: "row" }), cell(make("b", { textContent: number(score, score.value) })), cell(interval), make("td", {}, scale(score)), cell(score.chance ? number(score, score.chance) : "–"), counts);
}

/** A score on its scale: its interval, itself, and what guessing has. */
function scale(score) {
  if (score.kind === "bits" || score.value === null) return "";
  const [low, high] = score.kind === "mark" ? [1, 10] : [0, 1];
  const place = (value) => (100 * (value - low)) / (high - low);
  const mark = (className, from, to) => {
    const element = make("i", { className });
    element.style.left = `${place(from)}%`;
    if (to !== undefined) element.style.width = `${place(to) - place(from)}%`;
    return element;
  };
  const sure = score.chance && score.low > score.chance ? "sure" : "";
  const scaled = make("span", { className: `scale ${sure}`, ariaHidden: "true" }, mark("interval", score.low, score.high), mark("value", score.value));
  if (score.chance) scaled.append(mark("chance", score.chance));
  return scaled;
}

function number(score, value) {
  if (value === null) return "–";
  return { share: `${(100 * value).toFixed(1)} %`, mark: value.toFixed(2), bits: value.toFixed(4) }[score.kind] ?? String(value);
}

$("evaluate").addEventListener("submit", (event) => {
  event.preventDefault();
  deed("v1/evaluations", { limit: Math.max(0, Math.floor($("limit").valueAsNumber) || 0) });
});
