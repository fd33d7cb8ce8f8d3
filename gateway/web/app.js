import { Axis } from './lanes.js';
import { Pane } from './pane.js';
import { complete } from './stream.js';

const EXAMPLES = {
  'an interface': '/** Options of a request. */\nexport interface RequestOptions {',
  'a class': '/** A queue of tasks that run one after another. */\nexport declare class TaskQueue {',
  overloads: 'export declare function parse(text: string): Document;\nexport declare function parse(',
  'an enumeration': 'export declare enum Status {\n    Ok = 200,',
};

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ ($(id));
const status = $('status');
const panes = $('panes');
const template = /** @type {HTMLTemplateElement} */ ($('pane'));

/** Aborts the current run. */
let running = /** @type {AbortController | undefined} */ (undefined);

/** The button that started the current run, if it had the focus. */
let pressed = /** @type {HTMLElement | undefined} */ (undefined);

/** @param {string} message @param {boolean} [error] */
function say(message, error = false) {
  status.textContent = message;
  status.classList.toggle('error', error);
}

/** @param {string} title @param {Axis} axis */
function newPane(title, axis) {
  const element = /** @type {HTMLElement} */ (template.content.cloneNode(true)).querySelector('section');
  panes.append(/** @type {HTMLElement} */ (element));
  return new Pane(/** @type {HTMLElement} */ (element), title, input('prompt').value, axis);
}

/** Returns the request body. Empty fields are left out, so that the server's defaults apply. @param {boolean} draft */
function bodyOf(draft) {
  const names = ['temperature', 'top_p', 'top_k', 'max_tokens', 'seed'];
  const given = names.filter((name) => input(name).value !== '').map((name) => [name, Number(input(name).value)]);
  return { prompt: input('prompt').value, ...Object.fromEntries(given), ptp: { draft, trace: true } };
}

/**
 * Generates once per way, concurrently, each in its own pane.
 *
 * @param {{ title: string, draft: boolean }[]} ways
 * string} verdict returns the final status message => @param {(panes: Pane[]) => string} verdict function that returns
 * the final status message => string} verdict returns the final status message
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
  const shown = ways.map(({ title }) => newPane(title, axis));
  try {
    await Promise.all(
      ways.map(async ({ draft }, i) => {
        const pane = /** @type {Pane} */ (shown[i]);
        await complete(bodyOf(draft), signal, (trace, text) => pane.add(trace, text));
        pane.end();
        if (ways.length > 1) say(`${ways[i]?.title}: done.`);
      }),
    );
    // The final common axis requires a redraw.
    for (const pane of shown) pane.end();
    say(verdict(shown));
  } catch (error) {
    if (signal.aborted) say('Stopped.');
    else say(error instanceof Error ? error.message : String(error), true);
    mine.abort();
  } finally {
    if (running === mine) busy(false);
  }
}

/** Shows Stop and disables the other buttons during a run. Keeps the keyboard focus on an enabled button. @param {boolean} on */
function busy(on) {
  const stop = $('stop');
  const buttons = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('form button:not(#stop)'));
  const focused = [...buttons].find((button) => button === document.activeElement);
  const stopFocused = stop === document.activeElement;
  stop.hidden = !on;
  for (const button of buttons) button.toggleAttribute('disabled', on);
  if (on) pressed = focused;
  if (on && focused) stop.focus();
  if (!on && stopFocused) pressed?.focus();
}

/** @param {number} tokens */
function counted(tokens) {
  return `${tokens} ${tokens === 1 ? 'token' : 'tokens'}`;
}

/** @param {Pane[]} panes */
function raceVerdict([drafted, plain]) {
  if (!drafted || !plain) return '';
  const same = drafted.text === plain.text;
  if (!same) return 'The texts differ. This is a bug: please report the prompt, the settings and the seed.';
  const ratio = plain.perToken / drafted.perToken;
  // With a single step, there is no time per token to compare.
  const speed = Number.isFinite(ratio) ? ` ${ratio.toFixed(2)} times as fast with the drafter.` : '';
  return `Identical: ${counted(drafted.tokens)}.${speed}`;
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const draft = input('drafting').checked;
  run([{ title: draft ? 'With drafter' : 'Without drafter', draft }], ([pane]) => `${counted(pane?.tokens ?? 0)}.`);
});
$('race').addEventListener('click', () => {
  // Without a seed, the server would choose a different one for each run.
  if (input('seed').value === '') input('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  const ways = [
    { title: 'With drafter', draft: true },
    { title: 'Without drafter', draft: false },
  ];
  run(ways, raceVerdict);
});
$('stop').addEventListener('click', () => running?.abort());
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') running?.abort();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    /** @type {HTMLFormElement} */ ($('form')).requestSubmit();
  }
});

for (const [name, prompt] of Object.entries(EXAMPLES)) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = name;
  button.addEventListener('click', () => {
    input('prompt').value = prompt;
    input('prompt').focus();
  });
  document.querySelector('.examples')?.append(button);
}

fetch('v1/models')
  .then((response) => response.json())
  .then(({ data: [model] }) => {
    $('model').textContent = `Serving ${model.id}`;
  })
  .catch(() => {
    $('model').textContent = 'The server does not respond. Check that it is running, then reload.';
  });
