/**
 * Description of a step in a request with `ptp.trace` (gateway/src/openai/step-trace.ts).
 *
 * @typedef {{ id: number, text: string, source: string }} Token
 * @typedef {{ step: number, mode: string, source: string, drafted: number, accepted: number, ahead_us: number, step_us:
 *   number, verify_us: number, draft_us: number, redraft_us: number, tokens: Token[], rejected: { id: number, text:
 *   string }[] }} StepTrace
 */
import { copyOnClick } from './copy.js';
import { element as make } from './dom.js';
import { follow } from './follow.js';
import { Axis, drawLanes } from './lanes.js';

const CLASSES = /** @type {Record<string, string>} */ ({
  drafter: 'drafter',
  'prompt lookup': 'lookup',
  prediction: 'lookup',
  grammar: 'lookup',
});
/** Time in milliseconds until rejected tokens are removed. Equal to the duration of the CSS animation. */
const FADE = 1800;

/** Shows one answer while it arrives. */
export class Pane {
  #tokens = 0;
  /** @type {StepTrace[]} */
  #steps = [];
  #text = '';
  #began = performance.now();
  /** Arrival time of the first step's tokens, from which the time per token is measured. */
  #first = 0;
  #firstTokens = 0;
  #ended = 0;
  #drawing = false;

  /**
   * @param {HTMLElement} element copy of the template `pane`
   * @param {string} title
   * @param {string} prompt
   * @param {Axis} axis
   */
  constructor(element, title, prompt, axis) {
    this.element = element;
    this.axis = axis;
    this.output = /** @type {HTMLElement} */ (element.querySelector('.text'));
    this.svg = /** @type {SVGSVGElement} */ (element.querySelector('svg'));
    const heading = /** @type {HTMLElement} */ (element.querySelector('h2'));
    heading.textContent = title;
    this.output.setAttribute('aria-label', title);
    this.output.append(span('prompt', prompt));
    this.showEnd = follow(this.output);
    copyOnClick(/** @type {HTMLElement} */ (element.querySelector('.copy')), () => this.#text);
  }

  get text() {
    return this.#text;
  }

  /** Number of milliseconds per token since the first step. */
  get perToken() {
    return ((this.#ended || performance.now()) - this.#first) / (this.#tokens - this.#firstTokens);
  }

  get tokens() {
    return this.#tokens;
  }

  /** @param {StepTrace | undefined} trace @param {string} text */
  add(trace, text) {
    this.#text += text;
    if (!trace) return;
    const spans = trace.tokens.map(({ source, text }) => span(`token ${CLASSES[source] ?? 'target'}`, text));
    this.output.append(...spans.slice(0, trace.accepted));
    // The model's own token follows the rejected tokens.
    if (trace.rejected.length > 0) this.#reject(trace.rejected.map((token) => token.text).join(''));
    this.output.append(...spans.slice(trace.accepted));
    this.#tokens += trace.tokens.length;
    this.#steps.push(trace);
    if (this.#first === 0) {
      this.#first = performance.now();
      this.#firstTokens = this.#tokens;
    }
    this.#draw();
  }

  /** Marks the answer as complete. May be called again to redraw, once the other answers are complete. */
  end() {
    this.#ended ||= performance.now();
    this.#figures();
    drawLanes(this.svg, this.#steps, this.axis);
  }

  /** @param {string} text */
  #reject(text) {
    const wrong = make('del', { className: 'rejected fading', textContent: text.replaceAll('\n', '⏎') });
    wrong.setAttribute('aria-hidden', 'true');
    this.output.append(wrong);
    setTimeout(() => wrong.remove(), FADE);
  }

  /** Redraws at most once per frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.showEnd();
      this.#figures();
      drawLanes(this.svg, this.#steps, this.axis);
    });
  }

  #figures() {
    const show = (/** @type {string} */ name, /** @type {string} */ value) => {
      const place = this.element.querySelector(`[data-figure="${name}"]`);
      if (place) place.textContent = value;
    };
    const seconds = ((this.#ended || performance.now()) - this.#began) / 1000;
    show('tokens', String(this.#tokens));
    show('perStep', this.#steps.length > 0 ? (this.#tokens / this.#steps.length).toFixed(2) : '–');
    show('perToken', this.#tokens > this.#firstTokens ? this.perToken.toFixed(1) : '–');
    show('time', `${seconds.toFixed(2)} s`);
  }
}

/** @param {string} className @param {string} textContent */
function span(className, textContent) {
  return make('span', { className, textContent });
}
