/** @import { Call, Step, Trace } from './trace-types.js' */

import { make } from './svg.js';

/** Height of a row in pixels. Equal to the height of the names to the left of the row. */
const ROW = 28;
const BAR = 20;
const ROWS = { gateway: 0, verifier: 1, drafter: 2 };
const HEIGHT = 108;
/** Minimum distance in pixels between two marks of the time axis. */
const TICK = 90;
/** Maximum width in pixels of a drawing that browsers render well. */
const WIDEST = 30_000;

/** Drawing of a request's steps and calls, with a time axis that can be zoomed and scrolled. One step is selected. */
export class Waterfall {
  /** @type {Trace | undefined} */
  #trace;
  #selected = 0;
  /** Width of the drawing relative to the view. */
  #zoom = 1;

  /** @param {HTMLElement} view element that contains the drawing @param {(step: Step) => void} onSelect */
  constructor(view, onSelect) {
    this.view = view;
    this.svg = /** @type {SVGSVGElement} */ (view.querySelector('svg'));
    this.onSelect = onSelect;
    const select = (/** @type {Event} */ event) => {
      const step = event.target instanceof Element ? event.target.getAttribute('data-step') : null;
      if (step !== null) this.select(Number(step));
    };
    this.svg.addEventListener('pointerover', select);
    this.svg.addEventListener('click', select);
    view.addEventListener('keydown', (event) => this.#key(event));
    view.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#draw()).observe(view);
  }

  /** @param {Trace} trace */
  show(trace) {
    this.#trace = trace;
    this.#zoom = 1;
    this.#draw();
    this.select(0);
  }

  /** @param {number} factor 0 fits the drawing to the view @param {number} [at] position in the view that stays fixed, pixels */
  zoom(factor, at = this.view.clientWidth / 2) {
    const place = (this.view.scrollLeft + at) / this.#width;
    const most = WIDEST / Math.max(1, this.view.clientWidth);
    this.#zoom = factor === 0 ? 1 : Math.min(most, Math.max(1, this.#zoom * factor));
    this.#draw();
    this.view.scrollLeft = place * this.#width - at;
  }

  /** @param {number} index index of the step, limited to the recorded steps */
  select(index) {
    const steps = this.#trace?.step_list ?? [];
    this.#selected = Math.max(0, Math.min(index, steps.length - 1));
    const step = steps[this.#selected];
    if (!step) return;
    this.#cursor(step);
    this.onSelect(step);
  }

  get #width() {
    return Math.max(1, this.view.clientWidth) * this.#zoom;
  }

  get #scale() {
    return this.#width / Math.max(1, this.#trace?.duration_us ?? 1);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = (this.#trace?.step_list.length ?? 0) - 1;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowRight: () => this.select(this.#selected + 1),
      ArrowLeft: () => this.select(this.#selected - 1),
      Home: () => this.select(0),
      End: () => this.select(last),
      '+': () => this.zoom(2),
      '-': () => this.zoom(0.5),
      0: () => this.zoom(0),
    };
    const action = event.ctrlKey || event.metaKey ? undefined : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    this.#reveal();
  }

  /** Zooms while Ctrl is pressed. @param {WheelEvent} event */
  #wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    this.zoom(2 ** (-event.deltaY / 200), event.clientX - this.view.getBoundingClientRect().left);
  }

  /** Scrolls to the selected step. */
  #reveal() {
    const step = this.#trace?.step_list[this.#selected];
    if (!step) return;
    const [left, right] = [step.start_us * this.#scale, (step.start_us + step.step_us) * this.#scale];
    const { scrollLeft, clientWidth } = this.view;
    if (left < scrollLeft || right > scrollLeft + clientWidth) {
      this.view.scrollLeft = (left + right - clientWidth) / 2;
    }
  }

  #draw() {
    const trace = this.#trace;
    if (!trace) return;
    const width = this.#width;
    this.svg.setAttribute('width', String(width));
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const bars = trace.step_list.flatMap((step, i) => [
      this.#bar('step', ROWS.gateway, step.start_us, step.step_us, i),
      ...step.calls.flatMap((call) => this.#call(call, i)),
    ]);
    const opening = trace.opening.flatMap((call) => this.#call(call));
    this.svg.replaceChildren(...this.#ticks(trace.duration_us), ...opening, ...bars, make('rect', { class: 'cursor' }));
    const step = trace.step_list[this.#selected];
    if (step) this.#cursor(step);
  }

  /**
   * Draws a pale bar for the call and a solid bar for its run. The network time is split evenly before and after.
   *
   * @param {Call} call
   * @param {number} [step]
   */
  #call(call, step) {
    const row = ROWS[call.service];
    const rest = Math.max(0, call.us - call.queue_us - call.run_us);
    const whole = this.#bar(call.kind, row, call.start_us, call.us, step);
    // Some calls report no run time.
    if (call.run_us > 0) whole.classList.add('pale');
    if (call.error) whole.classList.add('failed');
    if (call.run_us === 0) return [whole];
    return [whole, this.#bar(call.kind, row, call.start_us + rest / 2 + call.queue_us, call.run_us, step)];
  }

  /** @param {string} kind @param {number} row @param {number} start @param {number} micros @param {number} [step] */
  #bar(kind, row, start, micros, step) {
    const width = Math.max(0.5, micros * this.#scale);
    const place = { x: start * this.#scale, y: row * ROW + (ROW - BAR) / 2, width, height: BAR };
    return make('rect', { class: `bar-${kind}`, ...place, ...(step !== undefined && { 'data-step': step }) });
  }

  /** @param {number} total microseconds */
  #ticks(total) {
    const wanted = TICK / this.#scale;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const every = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted) ?? wanted;
    const digits = every < 1000 ? 1 : 0;
    return Array.from({ length: Math.floor(total / every) + 1 }, (_, i) => {
      const x = i * every * this.#scale;
      const text = make('text', { x: x + 3, y: HEIGHT - 6 });
      text.textContent = `${((i * every) / 1000).toFixed(digits)} ms`;
      return [make('line', { class: 'tick', x1: x, x2: x, y1: 0, y2: HEIGHT }), text];
    }).flat();
  }

  /** @param {Step} step */
  #cursor(step) {
    const cursor = this.svg.querySelector('.cursor');
    const place = {
      x: step.start_us * this.#scale,
      y: 1,
      width: Math.max(2, step.step_us * this.#scale),
      height: 3 * ROW - 2,
    };
    for (const [name, value] of Object.entries(place)) cursor?.setAttribute(name, String(value));
  }
}
