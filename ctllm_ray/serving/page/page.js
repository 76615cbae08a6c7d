// The page asks the API of its own server and nothing else. What a model, a server or a recipe says becomes text nodes,
// never HTML; of what it says, the characters that nobody sees are shown by their code points.

import { api, askKey, events, explain, hasKey, isAsking, post, Refusal } from "./api.js";
import { card, honest } from "./card.js";
import { look, offered } from "./evaluations.js";
import { $, both, make, put, told, whole, write } from "./words.js";

const root = document.documentElement;

// Language and colours ------------------------------------------------------------------------------------------------

const kept = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* a browser may forbid storage */ } };
const THEMES = { auto: ["◐", "颜色：随系统", "Colours: as the system"], light: ["☀\ufe0e", "颜色：浅", "Colours: light"], dark: ["☾\ufe0e", "颜色：深", "Colours: dark"] };
let theme = "auto";

function speak(lang) {
  root.dataset.lang = lang;
  root.lang = lang === "zh" ? "zh-Hans" : "en";
  for (const b of document.querySelectorAll("[data-set-lang]")) b.setAttribute("aria-pressed", String(b.dataset.setLang === lang));
  hint();
}

function paint(name) {
  theme = name in THEMES ? name : "auto";
  root.dataset.theme = theme;
  const [sign, zh, en] = THEMES[theme];
  $("theme-sign").textContent = sign;
  $("theme-name").replaceChildren(both(zh, en));
}

// The model -----------------------------------------------------------------------------------------------------------

const STATES = { ready: ["就绪", "Ready"], starting: ["忙或未就绪", "Busy or not ready"], lost: ["连不上", "Unreachable"] };
let model = null;
let mode = "completion";

async function watch() {
  const state = await fetch("ready").then((r) => (r.ok ? "ready" : "starting"), () => "lost");
  const before = root.dataset.state;
  if (before !== state) {
    root.dataset.state = state;
    $("state").replaceChildren(both(...STATES[state]));
    if (state === "ready" && before && model === null && !isAsking()) meet();
  }
  setTimeout(watch, state === "ready" ? 30_000 : 2_000);
}

/** Learns which model answers here. */
async function meet() {
  put($("notice"));
  try {
    const [first] = (await (await api("v1/models")).json()).data;
    model = await (await api(`v1/models/${encodeURIComponent(first.id)}`)).json();
  } catch (error) {
    explain($("notice"), error);
    $("notice").append(" ", make("button", { type: "button", className: "plain", onclick: meet }, both("再试", "Try again")));
    return;
  }
  $("name").replaceChildren(told("bdi", model.id));
  document.title = model.id;
  const most = Math.floor(model.context_tokens / 2);
  if (model.context_tokens) $("max_tokens").max = model.context_tokens;
  if (most) $("max_tokens").defaultValue = $("max_tokens").value = String(Math.min(256, most));
  greet();
  card(model);
  choose(model.chat ? "chat" : "completion");
  const reports = await api("reports").then((r) => r.json()).catch(() => ({}));
  for (const b of document.querySelectorAll("[data-set-report]")) b.hidden = !reports[b.dataset.setReport];
  $("to-reports").hidden = !reports.clean && !reports.train;
  $("to-evaluations").hidden = !(await offered());
  show();
}

const TRIES = { completion: ["春天来了，", "从前有一座山，", "北京是中国的"], chat: ["你好！请介绍一下你自己。", "写一首关于秋天的短诗。", "水为什么会结冰？"] };

function greet() {
  const lineage = model.lineage ?? {};
  put($("kind"), model.chat ? both("对话模型", "Chat model") : both("基座模型", "Base model"), lineage.run ? told("bdi", ` · ${lineage.run}`) : "", model.context_tokens ? ` · ${whole(model.context_tokens)} ` : "", model.context_tokens ? both("词元上下文", "tokens of context") : "");
  $("title").replaceChildren(told("bdi", model.id));
  $("honest").replaceChildren(...honest(model));
}

function choose(which) {
  mode = which;
  for (const b of document.querySelectorAll("[data-set-mode]")) b.setAttribute("aria-pressed", String(b.dataset.setMode === mode));
  const start = (text) => () => { $("text").value = text; $("text").focus(); };
  $("tries").replaceChildren(...TRIES[mode].map((text) => make("button", { type: "button", textContent: text, lang: "zh-Hans", onclick: start(text) })));
  hint();
}

function hint() {
  const words = { completion: ["写个开头，让它接着写……", "Write a beginning for it to continue…"], chat: ["问点什么……", "Ask something…"] };
  $("text").placeholder = words[mode][root.dataset.lang === "en" ? 1 : 0];
}

// The conversation: it lives here and nowhere else --------------------------------------------------------------------

const turns = []; // {kind, question, answer, element, part(name), abort, timer}
let busy = null; // the turn being answered
let editing = false; // the last question is in the box, to be replaced
let following = true; // the end of the log is in view, and stays
let lastTop = 0;

function settings() {
  const seed = $("seed").value === "" ? {} : { seed: Math.max(0, Math.floor($("seed").valueAsNumber)) };
  const most = Math.max(1, Math.floor($("max_tokens").valueAsNumber) || 256);
  return { temperature: $("temperature").valueAsNumber, top_p: $("top_p").valueAsNumber, max_tokens: most, ...seed };
}

function conversation(turn) {
  const messages = $("system").value.trim() ? [{ role: "system", content: $("system").value }] : [];
  for (const t of turns.slice(0, turns.indexOf(turn))) {
    if (t.kind === "chat" && t.answer) messages.push({ role: "user", content: t.question }, { role: "assistant", content: t.answer });
  }
  return [...messages, { role: "user", content: turn.question }];
}

function follow() {
  requestAnimationFrame(() => { if (following) $("log").scrollTop = $("log").scrollHeight; });
}

function newTurn(kind, question) {
  for (const t of turns) { // their time to wait is nobody's business now
    clearInterval(t.timer);
    t.part("wait").hidden = true;
  }
  const element = $("turn").content.firstElementChild.cloneNode(true);
  const turn = { kind, question, answer: "", element, part: (name) => element.querySelector(`.${name}`), abort: null, timer: 0 };
  element.classList.add(kind);
  write(turn.part("given"), question);
  turn.part("copy").addEventListener("click", () => copy(turn));
  turn.part("again").addEventListener("click", () => { if (!busy) answer(turn); });
  turn.part("edit").addEventListener("click", () => edit(turn));
  turns.push(turn);
  $("turns").append(element);
  return turn;
}

function drop(turn) {
  clearInterval(turn.timer);
  turn.element.remove();
  turns.splice(turns.indexOf(turn), 1);
}

function work(turn) {
  if (document.activeElement === $("stop")) (matchMedia("(pointer: fine)").matches ? $("text") : $("log")).focus({ preventScroll: true });
  busy = turn;
  $("send").hidden = turn !== null;
  $("stop").hidden = turn === null;
  $("hello").hidden = turns.length > 0;
  $("fresh").disabled = turn !== null || turns.length === 0;
}

/** Asks the model for the answer of a turn, and shows it as it comes. */
async function answer(turn) {
  clearInterval(turn.timer);
  turn.answer = "";
  turn.part("made").replaceChildren();
  turn.part("trouble").hidden = true;
  turn.part("counts").replaceChildren(both("在写……", "Writing…"));
  turn.element.classList.add("busy");
  turn.element.setAttribute("aria-busy", "true"); // read out once it is whole
  turn.abort = new AbortController();
  following = true;
  const held = turn.element.contains(document.activeElement); // by a button that now goes
  work(turn);
  if (held) $("stop").focus();
  follow();
  const course = { began: 0, first: 0, last: 0, usage: null, finish: "", stopped: false };
  try {
    await stream(turn, course);
  } catch (error) {
    course.stopped = error.name === "AbortError";
    if (!course.stopped) trouble(turn, error);
  }
  turn.element.classList.remove("busy");
  turn.element.setAttribute("aria-busy", "false");
  count(turn, course);
  work(null);
  follow();
}

async function stream(turn, course) {
  const response = await open(turn);
  course.began = response.began;
  for await (const data of events(response.body)) {
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal("broken", String(chunk.error.message ?? ""));
    course.usage = chunk.usage ?? course.usage;
    const choice = chunk.choices?.[0];
    course.finish = choice?.finish_reason ?? course.finish;
    const piece = choice?.text ?? choice?.delta?.content ?? "";
    if (piece === "") continue;
    course.last = performance.now();
    course.first ||= course.last;
    turn.answer += piece;
    write(turn.part("made"), piece);
    follow();
  }
}

/** The stream of an answer. Where fewer tokens have room than the settings want, it is asked for as many as have. */
async function open(turn) {
  if (model === null) await meet();
  if (model === null) throw new Refusal(503);
  const { signal } = turn.abort;
  const [path, text] = turn.kind === "chat" ? ["v1/chat/completions", { messages: conversation(turn) }] : ["v1/completions", { prompt: turn.question }];
  const asked = { model: model.id, ...text, ...settings(), stream: true, stream_options: { include_usage: true } };
  try {
    return await post(path, asked, signal);
  } catch (error) {
    if (error.code !== "context_length_exceeded") throw error;
    const { count, max_model_len: most } = await (await post("tokenize", { model: model.id, ...text }, signal)).json();
    if (most - count < 1 || most - count >= asked.max_tokens) throw error;
    return post(path, { ...asked, max_tokens: most - count }, signal);
  }
}

const BURST_MS = 200;

/** The line under an answer: tokens, time to the first one, speed, how it ended. */
function count(turn, { began, first, last, usage, finish, stopped }) {
  const parts = [];
  const wait_s = ((first - began) / 1000).toFixed(2);
  const burst = last - first < BURST_MS; // all came at once, from a buffer: only the whole wait tells a speed
  const tokens = usage?.completion_tokens - (burst ? 0 : 1); // else the first one's time is the prompt's
  const speed = (tokens / ((last - (burst ? began : first)) / 1000)).toFixed(1);
  if (usage) parts.push(both(`问 ${whole(usage.prompt_tokens)} + 答 ${whole(usage.completion_tokens)} 词元`, `${whole(usage.prompt_tokens)} + ${whole(usage.completion_tokens)} tokens`));
  else if (turn.answer) parts.push(both(`${whole([...turn.answer].length)} 字符`, `${whole([...turn.answer].length)} characters`));
  if (first) parts.push(both(`首字 ${wait_s} s`, `first after ${wait_s} s`));
  if (usage?.completion_tokens > 1 && last > began) parts.push(both(`${speed} 词元/s`, `${speed} tokens/s`));
  if (finish === "length") parts.push(both("到了长度上限", "length limit reached"));
  if (stopped) parts.push(both("已停止", "stopped"));
  turn.part("counts").replaceChildren(...parts.flatMap((part, i) => (i ? [" · ", part] : [part])));
  const room = usage && model.context_tokens ? `${whole(usage.prompt_tokens + usage.completion_tokens)} / ${whole(model.context_tokens)}` : "";
  if (room) $("room").replaceChildren(both(`上下文 ${room}`, `Context ${room}`));
}

/** Says what went wrong with a turn and, where the server names a time, counts it down. */
function trouble(turn, error) {
  const again = turn.part("again");
  turn.part("trouble").hidden = false;
  explain(turn.part("trouble").firstElementChild, error);
  const until = performance.now() + 1000 * (error.wait_s ?? 0);
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    again.disabled = left > 0;
    put(turn.part("wait"), ...(left > 0 ? [both(`${left} 秒后可以再试。`, `Try again in ${left} s.`)] : []));
    if (left <= 0) clearInterval(turn.timer);
  };
  turn.timer = setInterval(tick, 250);
  tick();
}

async function copy(turn) {
  const text = turn.kind === "completion" ? turn.question + turn.answer : turn.answer;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // plain http from another machine: what is selected can still be copied
    getSelection().selectAllChildren(turn.kind === "completion" ? turn.part("body") : turn.part("made"));
    document.execCommand("copy");
  }
  turn.part("copy").replaceChildren(both("已复制", "Copied"));
  setTimeout(() => turn.part("copy").replaceChildren(both("复制", "Copy")), 1500);
}

let draft = ""; // what was in the box before a question was put there

function edit(turn) {
  if (busy || editing) return;
  draft = $("text").value;
  choose(turn.kind);
  setEditing(true, turn.question);
}

function setEditing(on, text) {
  editing = on;
  $("editing").hidden = !on;
  $("text").value = text;
  $("text").focus();
}

function send() {
  const question = $("text").value;
  if (busy || question.trim() === "") return;
  if (editing) drop(turns.at(-1));
  setEditing(false, "");
  answer(newTurn(mode, question));
}

function forget() {
  if (busy) return;
  while (turns.length) drop(turns.at(-1));
  setEditing(false, "");
  $("room").replaceChildren();
  work(null);
}

// The tabs ------------------------------------------------------------------------------------------------------------

async function report(which) {
  const path = `reports/${which}`;
  for (const b of document.querySelectorAll("[data-set-report]")) b.setAttribute("aria-pressed", String(b.dataset.setReport === which));
  $("alone").href = path;
  const address = `${path}?lang=${root.dataset.lang}`;
  if ($("report").getAttribute("src") === address) return;
  await api("reports").catch(() => {}); // a frame cannot send a key: this brings the cookie that it shows instead
  $("report").src = address;
}

function show() {
  const wanted = location.hash.slice(1);
  const tab = wanted === "card" || (["reports", "evaluations"].includes(wanted) && !$(`to-${wanted}`).hidden) ? wanted : "ask";
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== tab;
  for (const a of document.querySelectorAll(".links a")) a.hash === `#${tab}` ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current");
  const chosen = document.querySelector("[data-set-report][aria-pressed='true']") ?? document.querySelector("[data-set-report]:not([hidden])");
  if (tab === "reports") report(chosen.dataset.setReport);
  look(tab === "evaluations");
}

// Hands ---------------------------------------------------------------------------------------------------------------

const composing = (event) => event.isComposing || event.keyCode === 229; // 229: Safari's Enter that ends a composition
const on = (id, what, then) => $(id).addEventListener(what, then);

on("composer", "submit", (event) => { event.preventDefault(); send(); });
on("text", "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || composing(event)) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || composing(event) || document.querySelector("dialog[open]")) return;
  if (busy) busy.abort.abort();
  else if (editing) setEditing(false, draft);
});
on("stop", "click", () => busy?.abort.abort());
on("keep", "click", () => setEditing(false, draft));
on("fresh", "click", forget);
on("down", "click", () => { following = true; follow(); });
on("log", "scroll", () => {
  const log = $("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 24) following = true;
  else if (log.scrollTop < lastTop - 1) following = false; // a hand: what is written only moves the end down
  lastTop = log.scrollTop;
  $("down").hidden = following;
});
for (const id of ["temperature", "top_p"]) {
  const tell = () => { document.querySelector(`output[for="${id}"]`).value = $(id).valueAsNumber.toFixed(2); };
  on(id, "input", tell);
  on("settings", "reset", () => setTimeout(tell));
  tell();
}
on("to-settings", "click", () => {
  put($("has-key"), hasKey() ? both("此标签页里有一个密钥。", "This tab holds a key.") : both("此标签页里没有密钥。", "This tab holds no key."));
  $("settings").showModal();
});
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
on("to-key", "click", () => { $("settings").close(); askKey().then((given) => given && meet()); });
on("no-key", "click", () => $("key").close());
on("theme", "click", () => {
  const names = Object.keys(THEMES);
  paint(names[(names.indexOf(theme) + 1) % names.length]);
  keep("ctllm-theme", theme);
});
for (const b of document.querySelectorAll("[data-set-mode]")) b.addEventListener("click", () => { choose(b.dataset.setMode); $("text").focus(); });
for (const b of document.querySelectorAll("[data-set-report]")) b.addEventListener("click", () => report(b.dataset.setReport));
for (const b of document.querySelectorAll("[data-set-lang]")) b.addEventListener("click", () => { speak(b.dataset.setLang); keep("ctllm-lang", b.dataset.setLang); show(); });
addEventListener("hashchange", show);

paint(kept("ctllm-theme"));
speak((new URLSearchParams(location.search).get("lang") ?? kept("ctllm-lang")) === "en" ? "en" : "zh");
work(null);
show();
watch();
meet();
