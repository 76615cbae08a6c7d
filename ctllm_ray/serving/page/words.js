// Small pieces of a page: phrases in two languages, numbers, and text of strangers made safe to look at.

export const $ = (id) => document.getElementById(id);

/** A new element; strings among its children become text nodes. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A phrase in both languages; the style sheet shows one. */
export function both(zh, en) {
  const phrase = document.createDocumentFragment();
  phrase.append(make("span", { className: "zh", lang: "zh-Hans", textContent: zh }), make("span", { className: "en", lang: "en", textContent: en }));
  return phrase;
}

/** Fills an element, and hides it where there is nothing to fill it with. */
export function put(element, ...children) {
  element.replaceChildren(...children);
  element.hidden = children.length === 0;
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const whole = (n) => Number(n).toLocaleString("en");
export const short = (n) => (n < 1e4 ? whole(n) : compact.format(n).replace("K", "k"));
export const size = (bytes) => (bytes < 1000 ? `${bytes} B` : `${compact.format(bytes).replace(/[KMBT]$/, (unit) => ` ${{ K: "k", M: "M", B: "G", T: "T" }[unit]}B`)}`);

// Controls except tab and line feed, soft hyphen, bidi marks, zero-width space and word joiner, line separators, fillers,
// byte-order mark, interlinear marks, tags. ZWJ and ZWNJ stay as they are: emoji and Persian need them.
const STRANGE = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}])/u;

/** Appends text to an element, with its invisible characters as code points; what came before stays as it is. */
export function write(element, text) {
  for (const [i, part] of text.split(STRANGE).entries()) {
    if (i % 2) element.append(make("span", { className: "strange", textContent: `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` }));
    else if (element.lastChild?.nodeType === Node.TEXT_NODE) element.lastChild.appendData(part);
    else if (part) element.append(part);
  }
}

/** An element with text of strangers. */
export function told(tag, text, properties = {}) {
  const element = make(tag, properties);
  write(element, String(text));
  return element;
}
