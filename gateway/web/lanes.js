/** @import { StepTrace } from './pane.js' */

import { make } from './svg.js';

/** Number of steps shown. */
const SHOWN = 14;
/** Positions in the drawing, in pixels. The drawing is as wide as its element. */
const LEFT = 46;
const LANES = { tokens: 6, verify: 44, draft: 68 };
const HEIGHT = 18;
/** Height of the token columns. */
const COLUMN = 32;
const BOTTOM = 110;

/** Time axis that the charts of a comparison share. It is as long as the longest chart. */
export class Axis {
  /** @type {Map<object, number>} */
  #spans = new Map();

  /**
   * @param {object} chart
   * @param {number} micros total duration of the steps that the chart shows
   * @returns {number} length of the axis in microseconds
   */
  span(chart, micros) {
    this.#spans.set(chart, micros);
    return Math.max(1, ...this.#spans.values());
  }
}

/**
 * Draws the last steps on a common time axis: a column of tokens per step, a lane for verify calls and one for drafts.
 *
 * @param {SVGSVGElement} svg
 * @param {readonly StepTrace[]} steps all steps so far
 * @param {Axis} axis
 */
export function drawLanes(svg, steps, axis) {
  const shown = steps.slice(-SHOWN);
  const width = svg.clientWidth || 400;
  svg.setAttribute('viewBox', `0 0 ${width} ${BOTTOM + 2}`);
  const total = axis.span(
    svg,
    shown.reduce((sum, { step_us }) => sum + step_us, 0),
  );
  const scale = (width - LEFT) / total;
  const most = Math.max(4, ...shown.map(({ tokens }) => tokens.length));
  const parts = [
    text('tokens', 0, LANES.tokens + 22, 'start'),
    label('verify', LANES.verify),
    label('draft', LANES.draft),
  ];
  let start = 0;
  for (const step of shown) {
    const bar = (
      /** @type {string} */ kind,
      /** @type {number} */ y,
      /** @type {number} */ from,
      /** @type {number} */ micros,
    ) => {
      if (micros > 0) parts.push(rectangle(kind, LEFT + (start + from) * scale, y, micros * scale));
    };
    // The target's own token is drawn on top of the accepted tokens.
    const unit = COLUMN / most;
    const accepted = Math.min(step.accepted, step.tokens.length);
    const column = (/** @type {string} */ kind, /** @type {number} */ from, /** @type {number} */ count) => {
      const y = LANES.tokens + COLUMN - (from + count) * unit;
      if (count > 0) parts.push(rectangle(kind, LEFT + start * scale, y, step.step_us * scale, count * unit - 0.5));
    };
    column(step.source === 'drafter' ? 'draft' : 'repeated', 0, accepted);
    column('own', accepted, step.tokens.length - accepted);
    bar('redraft', LANES.draft, 0, step.redraft_us);
    bar('verify', LANES.verify, step.redraft_us, step.verify_us);
    // The draft of a step that was sent ahead starts earlier than the step.
    bar('draft', LANES.draft, step.redraft_us - step.ahead_us, step.draft_us);
    parts.push(border(LEFT + start * scale));
    start += step.step_us;
  }
  parts.push(text(`${(total / 1000).toFixed(0)} ms`, width, BOTTOM - 4, 'end'), text('0', LEFT, BOTTOM - 4, 'start'));
  svg.replaceChildren(...parts);
}

/** @param {string} name @param {number} y */
function label(name, y) {
  return text(name, 0, y + 13, 'start');
}

/** @param {string} content @param {number} x @param {number} y @param {string} anchor */
function text(content, x, y, anchor) {
  const element = make('text', { x, y, 'text-anchor': anchor });
  element.textContent = content;
  return element;
}

/** @param {string} kind @param {number} x @param {number} y @param {number} width @param {number} [height] */
function rectangle(kind, x, y, width, height = HEIGHT) {
  return make('rect', { class: `lane-${kind}`, x, y, width: Math.max(1, width - 1), height, rx: 2 });
}

/** @param {number} x */
function border(x) {
  return make('line', { class: 'lane-border', x1: x, x2: x, y1: 2, y2: LANES.draft + HEIGHT + 4 });
}
