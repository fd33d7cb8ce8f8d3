import { copyOnClick } from './copy.js';
import { element } from './dom.js';
import { MarkdownView } from './markdown.js';

/** A message of a conversation. @typedef {{ role: 'user' | 'assistant', content: string, reasoning?: string }} Message */

/** Pause after a draw, as a multiple of its duration. Keeps the page responsive while a long text grows. */
const PAUSE = 4;

/** Shows one message, and redraws it at most once per frame while it grows. */
export class MessageView {
  /** True if the message has grown since the last draw. */
  #hasGrown = false;
  /** Minimum time in milliseconds until the next draw. */
  #pause = 0;

  /** @param {Message} message @param {() => void} [onDraw] */
  constructor(message, onDraw = () => {}) {
    this.message = message;
    this.onDraw = onDraw;
    const isUser = message.role === 'user';
    this.text = element('div', { className: 'message-text' });
    this.thoughts = element('div', { className: 'thoughts-text' });
    this.reasoning = element('details', { className: 'thoughts' }, element('summary', {}, 'Thoughts'), this.thoughts);
    this.note = element('span', { className: 'quiet' });
    const copy = element('button', { type: 'button', className: 'small', textContent: 'Copy' });
    copyOnClick(copy, () => this.message.content);
    this.element = element(
      'li',
      { className: `message ${message.role}` },
      element('span', { className: 'hidden' }, isUser ? 'You:' : 'Model:'),
      ...(isUser ? [] : [this.reasoning]),
      this.text,
      element('div', { className: 'message-foot' }, copy, this.note),
    );
    this.markdown = isUser ? undefined : new MarkdownView(this.text);
    this.draw();
  }

  /** @param {{ content?: string, reasoning?: string }} piece */
  add({ content = '', reasoning = '' }) {
    this.message.content += content;
    if (reasoning !== '') this.message.reasoning = (this.message.reasoning ?? '') + reasoning;
    if (this.#hasGrown) return;
    this.#hasGrown = true;
    const draw = () => this.#hasGrown && this.draw();
    setTimeout(() => requestAnimationFrame(draw), this.#pause);
  }

  draw() {
    this.#hasGrown = false;
    const start = performance.now();
    const { content, reasoning = '' } = this.message;
    this.reasoning.hidden = reasoning === '';
    this.thoughts.textContent = reasoning;
    if (this.markdown) this.markdown.show(content);
    else this.text.textContent = content;
    this.onDraw();
    this.#pause = PAUSE * (performance.now() - start);
  }
}
