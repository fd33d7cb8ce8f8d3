/** @typedef {'completion' | 'chat'} Kind */
import { $, input } from './dom.js';
import { store, stored } from './storage.js';

const NUMBERS = ['temperature', 'top_p', 'top_k', 'max_tokens', 'seed'];
const TEXTS = [...NUMBERS, 'stop_strings'];
const SWITCHES = ['vary', 'drafting'];

/** @type {Record<Kind, Record<string, string | boolean>>} */
const DEFAULTS = {
  completion: { temperature: '0.7', top_p: '0.9', top_k: '50', max_tokens: '160', vary: true, drafting: true },
  chat: { temperature: '0.7', top_p: '0.9', top_k: '50', vary: true, drafting: true },
};

/** Kind of request whose settings the form shows. */
let shown = /** @type {Kind} */ ('completion');

/** Shows the settings of the last visit, or the defaults. @param {Kind} kind */
export function showSettings(kind) {
  shown = kind;
  const values = { ...DEFAULTS[kind], ...stored(`ptp-${kind}`) };
  for (const name of TEXTS) input(name).value = String(values[name] ?? '');
  for (const name of SWITCHES) input(name).checked = Boolean(values[name]);
  summarize();
}

/**
 * Returns the fields of a request body. Empty fields are left out, so that the server's defaults apply. Draws a new seed
 * if the reader wants a new one each time, or if the field is empty, so that any answer can be repeated.
 *
 * @param {boolean} [draw] false to leave the seed as it is
 */
export function requestFields(draw = true) {
  if (draw && (input('vary').checked || input('seed').value === '')) {
    input('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    save();
  }
  const given = NUMBERS.filter((name) => input(name).value !== '').map((name) => [name, Number(input(name).value)]);
  const stop = stopStrings(input('stop_strings').value);
  return { ...Object.fromEntries(given), ...(stop.length > 0 && { stop }) };
}

/** Returns true if drafting is on. */
export const isDrafting = () => input('drafting').checked;

/** Returns one string per line, with line feeds and tabs for `\n` and `\t`. @param {string} text */
function stopStrings(text) {
  const controls = /** @type {Record<string, string>} */ ({ n: '\n', t: '\t', '\\': '\\' });
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => line.replace(/\\([nt\\])/g, (_, name) => controls[name] ?? ''));
}

/** Shows the most important values next to the heading, for readers who have closed the settings. */
function summarize() {
  const parts = [
    ['temperature', 'temperature'],
    ['max_tokens', 'tokens at most'],
  ].flatMap(([name = '', words]) => (input(name).value === '' ? [] : `${input(name).value} ${words}`));
  const seed = input('vary').checked || input('seed').value === '' ? 'new seed' : `seed ${input('seed').value}`;
  $('settings-summary').textContent = [...parts, seed].join(' · ');
}

function save() {
  const texts = TEXTS.map((name) => [name, input(name).value]);
  const switches = SWITCHES.map((name) => [name, input(name).checked]);
  store(`ptp-${shown}`, Object.fromEntries([...texts, ...switches]));
  summarize();
}

$('settings').addEventListener('input', (event) => {
  // A seed that the reader types is meant to stay.
  if (event.target === input('seed')) input('vary').checked = input('seed').value === '';
  save();
});
