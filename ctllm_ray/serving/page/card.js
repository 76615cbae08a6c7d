// The model card: where a model comes from by its lineage, and what may be expected of it.

import { $, both, make, short, size, told, whole } from "./words.js";

/** How many parameters the weights hold; 0 where the lineage does not tell. */
function parameters(model) {
  const { files = {}, precision } = model.lineage ?? {};
  const bytes = Object.entries(files).reduce((sum, [name, file]) => sum + (name.endsWith(".safetensors") ? file.bytes : 0), 0);
  return bytes / (precision === "fp32" ? 4 : 2);
}

/** What may be expected of this model, in honest words. */
export function honest(model) {
  const n = parameters(model);
  const tokens = model.trained_tokens;
  const say = (zh, en) => make("p", { className: "honest" }, both(zh, en));
  const words = [
    model.chat
      ? say("它学过按对话回答。", "It was taught to answer in a conversation.")
      : say("这是基座模型：只会接着往下写，没有学过回答问题和听从指令。给它文章的开头，别给它命令。", "This is a base model: it continues a text and was never taught to answer or to obey. Give it the beginning of a text rather than an order."),
  ];
  if (n && n < 3e8) words.push(say(
    `它很小：约 ${short(n)} 参数${tokens ? `，只见过 ${short(tokens)} 词元` : ""}。能写出像样的词句，写不出可靠的事实，也不会推理和计算；常会重复和跑题。`,
    `It is very small: about ${short(n)} parameters${tokens ? `, trained on ${short(tokens)} tokens` : ""}. It writes plausible phrases, no reliable facts; it neither reasons nor calculates, and it often repeats itself and drifts.`));
  words.push(say("写出来的不经审查，可能有错、有偏见。", "What it writes is not checked and may be wrong or biased."));
  return words;
}

const mono = (text) => told("code", text);
const chips = (facts) => Object.entries(facts).map(([name, value]) => told("span", `${name} ${value}`, { className: "chip" }));

function mixture(phases = []) {
  const groups = [...new Set(phases.flatMap((phase) => Object.keys(phase.shares)))];
  const colour = (group) => `g${Math.min(groups.indexOf(group), 5)}`;
  return phases.flatMap(({ shares, until_tokens: until }) => {
    const share = Object.entries(shares);
    const bars = share.map(([group, part]) => {
      const bar = make("i", { className: colour(group) });
      bar.style.width = `${100 * part}%`;
      return bar;
    });
    const legend = share.map(([group, part]) => told("li", `${group} ${(100 * part).toFixed(1)} %`, { className: colour(group) }));
    const when = until ? both(`到 ${short(until)} 词元`, `up to ${short(until)} tokens`) : both("到结束", "to the end");
    return [make("p", { className: "phase" }, when), make("div", { className: "mix", ariaHidden: "true" }, ...bars), make("ul", { className: "legend" }, ...legend)];
  });
}

/** Where the model comes from, from its lineage. */
export function card(model) {
  const l = model.lineage ?? {};
  const shards = (l.data?.generations ?? []).flatMap((g) => g.corpora ?? []).flatMap((c) => c.shards ?? []);
  const n = parameters(model);
  const rows = [
    [["模型", "Model"], mono(model.id)],
    [["参数", "Parameters"], n && both(`约 ${short(n)}（由权重文件大小算得）`, `about ${short(n)} (from the size of the weights)`)],
    [["上下文", "Context"], model.context_tokens && both(`${whole(model.context_tokens)} 词元`, `${whole(model.context_tokens)} tokens`)],
    [["配方", "Recipe"], l.name && told("bdi", `${l.name} ${l.version}${l.run ? ` · ${l.run}` : ""}`)],
    [["配方指纹", "Recipe fingerprint"], l.recipe_fingerprint && mono(l.recipe_fingerprint)],
    [["目标", "Objective"], l.recipe?.train?.objective?.use],
    [["训练步", "Step"], l.checkpoint && whole(l.checkpoint.step)],
    [["训练词元", "Tokens trained on"], model.trained_tokens && both(`${whole(model.trained_tokens)}（所有阶段）`, `${whole(model.trained_tokens)} in all phases`)],
    [["本阶段词元", "Tokens of this phase"], l.tokens && model.trained_tokens !== l.tokens && `${whole(l.tokens)}`],
    [["权重精度", "Precision"], l.precision],
    [["数据指纹", "Data hash"], l.checkpoint?.data && mono(l.checkpoint.data)],
    [["分片", "Shards"], shards.length && both(`${whole(shards.length)} 个，${short(shards.reduce((sum, s) => sum + s.tokens, 0))} 词元`, `${whole(shards.length)}, ${short(shards.reduce((sum, s) => sum + s.tokens, 0))} tokens`)],
    [["代码", "Code"], l.code && chips(l.code)],
  ].filter(([, value]) => value);
  const list = rows.map(([label, value]) => make("div", {}, make("dt", {}, both(...label)), make("dd", {}, ...[value].flat())));
  const files = Object.entries(l.files ?? {}).map(([name, file]) =>
    make("tr", {}, told("th", name, { scope: "row" }), make("td", { className: "num", textContent: size(file.bytes) }), make("td", {}, mono(file.sha256))));
  const title = (zh, en) => make("h2", {}, both(zh, en));
  $("facts").replaceChildren(make("p", { className: "eyebrow" }, both("模型卡：从哪里来，能做什么", "Model card: where it comes from, what it can do")), told("h1", model.id));
  $("facts").append(...honest(model), make("dl", { className: "facts" }, ...list));
  if (rows.length < 4) $("facts").append(make("p", { className: "note" }, both("这个模型没有 lineage.json：不是用 ctllm 导出的，来历不明。", "This model has no lineage.json: ctllm did not export it, and where it comes from is not known.")));
  if (l.mixture) $("facts").append(title("配比", "Mixture"), ...mixture(l.mixture));
  if (files.length) $("facts").append(title("文件与 SHA-256", "Files and SHA-256"), make("table", { id: "files" }, make("tbody", {}, ...files)));
  if (l.recipe) $("facts").append(make("details", {}, make("summary", {}, both("完整来历", "The whole lineage")), told("pre", JSON.stringify(l, null, 1))));
}
