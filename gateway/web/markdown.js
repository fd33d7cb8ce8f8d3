/** @import { Token } from './marked.js' */
// The gateway serves `dompurify.js` and `marked.js` from the packages with these names.
import { copyOnClick } from './copy.js';
import { element } from './dom.js';
import purify from './dompurify.js';
import { Lexer, Marked } from './marked.js';

const markdown = new Marked({
  renderer: {
    // A model that writes about HTML means its text.
    html: ({ text, block }) => (block ? `<p>${escaped(text)}</p>` : escaped(text)),
    // Images would come from other servers, which would learn about the reader.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  },
});

/** Maximum number of emphasis marks in a paragraph. Parsing time grows with the square of this number. */
const MARKS = 400;

/** Leaves text with too many emphasis marks unformatted. */
class BoundedLexer extends Lexer {
  /** @override @param {string} src @param {Token[]} [tokens] @returns {Token[]} */
  inlineTokens(src, tokens = []) {
    if ((src.match(/[*_]+/g)?.length ?? 0) <= MARKS) return super.inlineTokens(src, tokens);
    tokens.push({ type: 'text', raw: src, text: src, escaped: false });
    return tokens;
  }
}

const ALLOWED_TAGS = [
  ...['a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li', 'ol', 'p'],
  ...['pre', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul'],
];
const ALLOWED_ATTR = ['href', 'title', 'align', 'start'];

/** Shows a growing Markdown text. Blocks that have not changed stay, so that readers can select them. */
export class MarkdownView {
  /** Markdown of each block. @type {string[]} */
  #blocks = [];
  /** Link definitions of the text, as JSON. Any block may use them. */
  #links = '{}';

  /** @param {HTMLElement} container */
  constructor(container) {
    this.container = container;
  }

  /** Shows the text, unformatted if it is nested too deeply for the parser. @param {string} text */
  show(text) {
    try {
      this.#showBlocks(text);
    } catch {
      this.container.replaceChildren(element('div', { className: 'plain', textContent: text }));
      this.#blocks = [];
    }
  }

  /** @param {string} text */
  #showBlocks(text) {
    const parsed = new BoundedLexer(markdown.defaults).lex(text);
    const links = JSON.stringify(parsed.links);
    if (links !== this.#links) this.#blocks = [];
    this.#links = links;
    const tokens = parsed.filter(({ type }) => type !== 'space');
    for (const [i, token] of tokens.entries()) {
      if (this.#blocks[i] === token.raw) continue;
      const block = rendered(markdown.parser([token]));
      const old = this.container.children[i];
      if (old) old.replaceWith(block);
      else this.container.append(block);
    }
    while (this.container.children.length > tokens.length) this.container.lastElementChild?.remove();
    this.#blocks = tokens.map(({ raw }) => raw);
  }
}

/** @param {string} html */
function rendered(html) {
  const block = element('div', { className: 'block' });
  block.append(purify.sanitize(html, { ALLOWED_TAGS, ALLOWED_ATTR, RETURN_DOM_FRAGMENT: true }));
  for (const link of block.querySelectorAll('a')) Object.assign(link, { target: '_blank', rel: 'noopener noreferrer' });
  for (const code of block.querySelectorAll('pre')) {
    code.tabIndex = 0; // It scrolls.
    const copy = element('button', { type: 'button', className: 'small', textContent: 'Copy' });
    copyOnClick(copy, () => code.textContent ?? '');
    const framed = element('div', { className: 'code' });
    code.replaceWith(framed);
    framed.append(code, copy);
  }
  return block;
}

/** @param {string} text */
function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
