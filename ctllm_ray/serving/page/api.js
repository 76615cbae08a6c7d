// The API of the server that this page came from: keys, refusals, streams.

import { $, both, put, told } from "./words.js";

const KEY = "ctllm-key"; // in sessionStorage: of this tab, forgotten with it
const SAYS = {
  lost: ["连不上服务器：它停了，或者网络断了", "The server cannot be reached: it stopped, or the network is down"],
  cut: ["连接中途断了，回答不完整", "The connection was lost: the answer is not complete"],
  broken: ["服务器中途停下了，回答不完整", "The server stopped: the answer is not complete"],
  unread: ["读不懂服务器的回答", "The server's answer cannot be read"],
  context_length_exceeded: ["超过了模型的上下文：缩短问题，或者开新对话", "Longer than the model's context: shorten the question, or start a new conversation"],
  insufficient_quota: ["这个密钥今天的词元用完了", "This key has used its tokens for today"],
  overloaded: ["现在问的人太多，排队已满", "Too many requests: the queue is full"],
  400: ["这个请求不被接受", "This request was not accepted"],
  401: ["没有密钥，服务器不回答", "The server requires an API key"],
  403: ["服务器不允许", "The server does not allow this request"],
  404: ["服务器上没有这个模型", "The server has no such model"],
  413: ["太长，服务器不收", "Too long for the server"],
  429: ["问得太快，超过了每分钟的次数", "Too many requests per minute"],
  500: ["服务器出错了", "The server failed"],
  503: ["模型没有准备好，或正在更换", "The model is not ready, or is being replaced"],
};
let asking = null; // the key dialog while it is open: a promise of true, or of false where it was given up

/** Why there is no answer: `why` is a key of SAYS or an HTTP status, `said` the server's words, `wait_s` its advice. */
export class Refusal extends Error {
  constructor(why, said = "", code = "", wait_s = 0) {
    super(said);
    Object.assign(this, { why, said, code, wait_s });
  }
}

async function refusal(response) {
  let problem = {};
  try { problem = (await response.json()).error ?? {}; } catch { /* a proxy's page */ }
  const after = response.headers.get("Retry-After");
  const wait_s = Number.isFinite(Number(after)) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return new Refusal(response.status, String(problem.message ?? ""), String(problem.code ?? ""), Math.max(0, Math.ceil(wait_s) || 0));
}

/** A good answer of the API, with the time it was asked for. A refused key asks for another. Raises Refusal. */
export async function api(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const began = performance.now();
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal("lost");
  }
  if (response.ok) return Object.assign(response, { began });
  const refused = await refusal(response);
  const another = refused.why === 401 || (refused.why === 403 && key !== null);
  if (another && (sessionStorage.getItem(KEY) !== key || (await askKey(key === null ? "" : refused.said)))) return api(path, options);
  throw refused;
}

export const post = (path, body, signal) =>
  api(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const isAsking = () => asking !== null;

/** Opens the key dialog; true when a key was given. `said` is what the server has against the one before. */
export function askKey(said = "") {
  asking ??= new Promise((resolve) => {
    const why = said ? both("服务器不认这个密钥。", "The server refused this key.") : both("本服务器只回答有密钥的人。", "This server answers those who have a key.");
    put($("key-why"), why, " ", told("bdi", said));
    $("secret").value = $("key").returnValue = "";
    $("key").addEventListener("close", () => {
      const secret = $("secret").value.trim();
      const given = $("key").returnValue === "use" && secret !== "";
      if (given) sessionStorage.setItem(KEY, secret);
      $("secret").value = "";
      asking = null;
      resolve(given);
    }, { once: true });
    $("key").showModal();
  });
  return asking;
}

/** The data of server-sent events up to [DONE]. Raises Refusal where the stream ends before. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => { throw error.name === "AbortError" ? error : new Refusal("cut"); });
      if (done) throw new Refusal("cut");
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : ""; // others are comments
        if (data === "[DONE]") return;
        if (data) yield data;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Writes into an element what went wrong, in both languages, then the server's own words. */
export function explain(element, error) {
  const why = error instanceof Refusal ? error.why : "unread";
  const [zh, en] = SAYS[error.code] ?? SAYS[why] ?? SAYS[why >= 500 ? 500 : 400];
  put(element, both(`${zh}。`, `${en}.`));
  if (error.said) element.append(" ", told("bdi", error.said, { className: "said" }));
}
