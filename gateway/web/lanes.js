/** @import { StepTrace } from './stream.js' */

const SVG = 'http://www.w3.org/2000/svg';
/** Steps in view. */
const SHOWN = 14;
/** Place of the lanes in the drawing, whose width is the element's own. */
const LEFT = 46;
const LANES = { verify: 6, draft: 30 };
const HEIGHT = 18;

/**
 * Draws the last steps as bars on a common time axis, one lane for the verifier and one for the drafter.
 *
 * @param {SVGSVGElement} svg
 * @param {readonly StepTrace[]} steps all so far
 */
export function drawLanes(svg, steps) {
  const shown = steps.slice(-SHOWN);
  const width = svg.clientWidth || 400;
  svg.setAttribute('viewBox', `0 0 ${width} 72`);
  const total = shown.reduce((sum, { step_us }) => sum + step_us, 0);
  const scale = (width - LEFT) / Math.max(1, total);
  const parts = [label('verify', LANES.verify), label('draft', LANES.draft)];
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
    bar('redraft', LANES.draft, 0, step.redraft_us);
    bar('verify', LANES.verify, step.redraft_us, step.verify_us);
    bar('draft', LANES.draft, step.redraft_us, step.draft_us);
    parts.push(border(LEFT + start * scale));
    start += step.step_us;
  }
  parts.push(text(`${(total / 1000).toFixed(0)} ms`, width, 66, 'end'), text('0', LEFT, 66, 'start'));
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

/** @param {string} kind @param {number} x @param {number} y @param {number} width */
function rectangle(kind, x, y, width) {
  return make('rect', { class: `lane-${kind}`, x, y, width: Math.max(1, width - 1), height: HEIGHT, rx: 2 });
}

/** @param {number} x */
function border(x) {
  return make('line', { class: 'lane-border', x1: x, x2: x, y1: 2, y2: 52 });
}

/** @param {string} name @param {Record<string, string | number>} attributes */
function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
