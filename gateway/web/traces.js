/** @import { Call, Step, Summary, Trace } from './trace-types.js' */
import { ask } from './api.js';
import { $, counted, messageOf, statusLine } from './dom.js';
import { authorization, connectKey } from './key.js';
import { Waterfall } from './waterfall.js';

const waterfall = new Waterfall($('view'), showStep);

/** @type {Trace | undefined} */
let shown;

/** Formats microseconds as milliseconds. @param {number | null} micros @param {number} [digits] */
const ms = (micros, digits = 1) => (micros === null ? '–' : (micros / 1000).toFixed(digits));

const say = statusLine('status');

/** Runs `work` and shows its error, if any. @param {() => Promise<void>} work */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    // The key form explains what is missing.
    if ($('key-form').hidden) say(messageOf(error), true);
    else say('');
  }
}

async function list() {
  const { traces } = /** @type {{ traces: Summary[] }} */ (await (await ask('traces.json')).json());
  say(traces.length === 0 ? 'No requests yet.' : `${counted(traces.length, 'request')}.`);
  $('requests')
    .querySelector('tbody')
    ?.replaceChildren(...traces.map(requestRow));
  mark();
}

/** @param {Summary} trace */
function requestRow(trace) {
  const open = document.createElement('button');
  open.type = 'button';
  open.textContent = trace.request_id ?? `#${trace.id}`;
  open.addEventListener('click', () => attempt(() => show(trace.id)));
  const row = cells([
    open,
    new Date(trace.began).toLocaleTimeString(),
    ms(trace.duration_us),
    ms(trace.first_token_us),
    `${trace.prompt_tokens} + ${trace.completion_tokens}`,
    trace.tokens_per_step?.toFixed(2) ?? '–',
    ms(trace.us_per_token, 2),
    trace.error ?? trace.finish,
  ]);
  row.dataset.id = trace.id;
  for (const i of [2, 3, 4, 5, 6]) row.cells[i]?.classList.add('number');
  // On a phone, each cell has its own name.
  const names = [...$('requests').querySelectorAll('th')].map((name) => name.textContent ?? '');
  for (const [i, cell] of [...row.cells].entries()) cell.dataset.name = names[i];
  if (trace.finish === 'failed') row.cells[7]?.classList.add('bad');
  return row;
}

/** @param {string} id */
async function show(id) {
  const trace = /** @type {Trace} */ (await (await ask(`traces/${id}.json`)).json());
  shown = trace;
  history.replaceState(null, '', `#${id}`);
  const { sampling: s } = trace;
  $('trace-title').textContent = `Request ${trace.request_id ?? `#${id}`}`;
  $('facts').textContent = [
    trace.model,
    trace.operation.replace('_', ' '),
    `temperature ${s.temperature}, top-k ${s.top_k}, top-p ${s.top_p}${s.min_p > 0 ? `, min-p ${s.min_p}` : ''}`,
    `seed ${trace.seed}`,
    `${trace.prompt_tokens} prompt tokens (${trace.cached_tokens} cached)`,
    `${trace.accepted} of ${trace.drafted} draft tokens accepted`,
    ...(trace.drafting ? [] : ['drafting off']),
    ...(trace.trace_id ? [`trace ${trace.trace_id}`] : []),
    ...(trace.steps_left_out > 0 ? [`the last ${trace.steps_left_out} steps were not recorded`] : []),
  ].join(' · ');
  for (const [link, suffix] of [
    ['json', 'json'],
    ['perfetto', 'perfetto.json'],
  ]) {
    /** @type {HTMLAnchorElement} */ ($(/** @type {string} */ (link))).href = `traces/${id}.${suffix}`;
  }
  $('trace').hidden = false;
  $('steps')
    .querySelector('tbody')
    ?.replaceChildren(...trace.step_list.map(stepRow));
  waterfall.show(trace);
  mark();
  $('trace-title').focus();
}

/** Highlights the row of the request that is shown. */
function mark() {
  for (const row of $('requests').querySelectorAll('tbody tr')) {
    if (row instanceof HTMLElement) row.setAttribute('aria-current', String(row.dataset.id === shown?.id));
  }
}

/** @param {Step} step @param {string} kind */
const callOf = ({ calls }, kind) => calls.find((call) => call.kind === kind);

/** Returns the times of a call in milliseconds: queue + run of total. @param {Call | undefined} call */
function callText(call) {
  if (!call) return '–';
  const failed = call.error ? ` (${call.error})` : '';
  return `${ms(call.queue_us)} + ${ms(call.run_us)} of ${ms(call.us)}${failed}`;
}

/** @param {Step} step */
function branchText({ branch_taken: taken }) {
  return taken
    ? `branch ${taken.accepted}, ${taken.length} ${taken.length === 1 ? 'token' : 'tokens'}`
    : 'no branch matched';
}

/** @param {Step} step */
function stepRow(step) {
  const verify = callOf(step, 'verify');
  const row = cells([
    String(step.step),
    ms(step.start_us),
    ms(step.step_us),
    `${step.mode}: ${step.reason}`,
    step.source,
    `${step.accepted} of ${step.drafted}`,
    callText(verify),
    callText(callOf(step, 'draft')),
    callText(callOf(step, 'redraft')),
    String(verify?.batch_size ?? '–'),
    branchText(step),
  ]);
  for (const i of [0, 1, 2, 5, 6, 7, 8, 9]) row.cells[i]?.classList.add('number');
  return row;
}

/** Shows the figures of one step. @param {Step} step */
function showStep(step) {
  const figures = {
    step: `${step.step} at ${ms(step.start_us)} ms`,
    'time, ms': ms(step.step_us),
    mode: `${step.mode}: ${step.reason}`,
    'proposed by': step.source,
    accepted: `${step.accepted} of ${step.drafted} (${step.offered} proposed)`,
    tokens: String(step.tokens),
    'verify, ms: queue + run': callText(callOf(step, 'verify')),
    'batch size': String(callOf(step, 'verify')?.batch_size ?? '–'),
    'concurrent draft, ms': callText(callOf(step, 'draft')),
    'redraft, ms': callText(callOf(step, 'redraft')),
    'draft budget': String(step.budget),
    'next draft': branchText(step),
  };
  $('step').replaceChildren(
    ...Object.entries(figures).map(([name, value]) => {
      const pair = document.createElement('div');
      const [term, figure] = [document.createElement('dt'), document.createElement('dd')];
      term.textContent = name;
      figure.textContent = value;
      pair.append(term, figure);
      return pair;
    }),
  );
}

/** Creates a table row. @param {(string | HTMLElement)[]} contents */
function cells(contents) {
  const row = document.createElement('tr');
  for (const content of contents) row.insertCell().append(content);
  return row;
}

/** Makes a link download its target with the API key, which browsers do not send with links. @param {string} id */
function downloadWithKey(id) {
  $(id).addEventListener('click', (event) => {
    if (!('authorization' in authorization())) return;
    event.preventDefault();
    const link = /** @type {HTMLAnchorElement} */ ($(id));
    attempt(async () => {
      const url = URL.createObjectURL(await (await ask(link.href)).blob());
      const save = document.createElement('a');
      save.href = url;
      save.download = link.href.split('/').at(-1) ?? '';
      save.click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  });
}

downloadWithKey('json');
downloadWithKey('perfetto');
$('reload').addEventListener('click', () => attempt(list));
$('in').addEventListener('click', () => waterfall.zoom(2));
$('out').addEventListener('click', () => waterfall.zoom(0.5));
$('fit').addEventListener('click', () => waterfall.zoom(0));
connectKey(() => attempt(list));
attempt(async () => {
  await list();
  if (/^#\d+$/.test(location.hash)) await show(location.hash.slice(1));
});
