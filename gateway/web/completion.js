import { stream } from './api.js';
import { showCode } from './code.js';
import { $, counted, element, input, messageOf, statusLine } from './dom.js';
import { Axis } from './lanes.js';
import { Pane } from './pane.js';
import { isDrafting, requestFields } from './settings.js';
import { store, stored } from './storage.js';

const EXAMPLES = {
  'an interface': '/** Options of a request. */\nexport interface RequestOptions {',
  'a class': '/** A queue of tasks that run one after another. */\nexport declare class TaskQueue {',
  overloads: 'export declare function parse(text: string): Document;\nexport declare function parse(',
  'an enumeration': 'export declare enum Status {\n    Ok = 200,',
};

const say = statusLine('status');
const panes = $('panes');
const template = /** @type {HTMLTemplateElement} */ ($('pane'));

/** Name of the source of drafts, shown in the titles of the panes. */
let drafter = 'drafter';

/** Aborts the current run. */
let running = /** @type {AbortController | undefined} */ (undefined);

/** The button that started the current run, if it had the focus. */
let pressed = /** @type {HTMLElement | undefined} */ (undefined);

/** Shows the name of the source of drafts. @param {boolean} hasDrafter */
export function nameDrafter(hasDrafter) {
  drafter = hasDrafter ? 'drafter' : 'prompt lookup';
  $('drafting-name').textContent = hasDrafter ? 'Drafter' : 'Prompt lookup';
  $('race').textContent = `Race with and without ${drafter}`;
}

export function stopCompletion() {
  running?.abort();
}

/** @param {string} title @param {Axis} axis */
function newPane(title, axis) {
  const copy = /** @type {HTMLElement} */ (template.content.cloneNode(true)).querySelector('section');
  panes.append(/** @type {HTMLElement} */ (copy));
  return new Pane(/** @type {HTMLElement} */ (copy), title, input('prompt').value, axis);
}

/**
 * Generates once per way, concurrently, each in its own pane.
 *
 * @param {{ title: string, draft: boolean }[]} ways
 * @param {(panes: Pane[]) => string} verdict function that returns the final status message
 */
async function run(ways, verdict) {
  running?.abort();
  const mine = new AbortController();
  const { signal } = mine;
  running = mine;
  panes.replaceChildren();
  busy(true);
  say('Generating …');
  const axis = new Axis();
  const request = requestBody();
  const shown = ways.map(({ title }) => newPane(title, axis));
  reveal();
  try {
    await Promise.all(
      ways.map(async ({ draft }, i) => {
        const pane = /** @type {Pane} */ (shown[i]);
        const body = { ...request, ptp: { draft, trace: true } };
        const onWait = (/** @type {string | undefined} */ reason) => say(reason ?? 'Generating …', Boolean(reason));
        for await (const { ptp, choices } of stream('v1/completions', body, signal, onWait)) {
          pane.add(ptp, choices[0]?.text ?? '');
        }
        pane.end();
        if (ways.length > 1) say(`${ways[i]?.title}: done.`);
      }),
    );
    // The final common axis requires a redraw.
    for (const pane of shown) pane.end();
    say(verdict(shown));
  } catch (error) {
    // A newer run has replaced this one.
    if (running !== mine) return;
    if (signal.aborted) say('Stopped.');
    else say(messageOf(error), true);
    mine.abort();
    for (const pane of shown) pane.end();
    if (shown.every(({ tokens }) => tokens === 0)) panes.replaceChildren();
  } finally {
    if (running === mine) busy(false);
  }
}

/**
 * Returns the request body. Token healing lets the model continue a prompt that ends with a line feed as if it had
 * written the prompt.
 *
 * @param {boolean} [draw] false to leave the seed as it is
 */
function requestBody(draw = true) {
  const prompt = input('prompt').value;
  return { model: 'default', prompt, token_healing: true, ...requestFields(draw), stream: true };
}

/** Scrolls to the output if it begins in the lower part of the window, as on a phone. */
function reveal() {
  if ($('output').getBoundingClientRect().top > innerHeight / 2) $('output').scrollIntoView();
}

/** Shows Stop and disables the other buttons during a run. Keeps the keyboard focus on an enabled button. @param {boolean} on */
function busy(on) {
  const stop = $('stop');
  const buttons = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('#form button'));
  const focused = [...buttons].find((button) => button === document.activeElement);
  const stopFocused = stop === document.activeElement;
  stop.hidden = !on;
  for (const button of buttons) button.toggleAttribute('disabled', on);
  if (on) pressed = focused;
  if (on && focused) stop.focus({ preventScroll: true });
  if (!on && stopFocused) pressed?.focus({ preventScroll: true });
}

/** @param {Pane[]} panes */
function verdictOf([pane]) {
  if (pane?.text === '') return 'The model ended the text at once. Try another seed or prompt.';
  return `${counted(pane?.tokens ?? 0, 'token')}.`;
}

/** @param {Pane[]} panes */
function raceVerdict([drafted, plain]) {
  if (!drafted || !plain) return '';
  const same = drafted.text === plain.text;
  if (!same) return 'The texts differ. This is a bug: please report the prompt, the settings and the seed.';
  const ratio = plain.perToken / drafted.perToken;
  // With a single step, there is no time per token to compare.
  const speed = Number.isFinite(ratio) ? ` ${ratio.toFixed(2)} times as fast with the ${drafter}.` : '';
  return `Identical: ${counted(drafted.tokens, 'token')}.${speed}`;
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const draft = isDrafting();
  run([{ title: `${draft ? 'With' : 'Without'} ${drafter}`, draft }], verdictOf);
});
$('race').addEventListener('click', () => {
  const ways = [
    { title: `With ${drafter}`, draft: true },
    { title: `Without ${drafter}`, draft: false },
  ];
  run(ways, raceVerdict);
});
$('stop').addEventListener('click', stopCompletion);
document.querySelector('#form .show-code')?.addEventListener('click', () => {
  const body = requestBody(false);
  showCode({ isChat: false, body: isDrafting() ? body : { ...body, ptp: { draft: false } } });
});

input('prompt').value = stored('ptp-prompt') ?? EXAMPLES['an interface'];
input('prompt').addEventListener('input', () => store('ptp-prompt', input('prompt').value));
for (const [name, prompt] of Object.entries(EXAMPLES)) {
  const button = element('button', { type: 'button', textContent: name });
  button.addEventListener('click', () => {
    input('prompt').value = prompt;
    store('ptp-prompt', prompt);
    input('prompt').focus();
  });
  document.querySelector('.examples')?.append(button);
}

input('rejected').checked = stored('ptp-rejected') ?? false;
const showRejected = () => panes.classList.toggle('with-rejected', input('rejected').checked);
input('rejected').addEventListener('change', () => {
  store('ptp-rejected', input('rejected').checked);
  showRejected();
});
showRejected();
