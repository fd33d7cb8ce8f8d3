/** @import { Message } from './message.js' */
import { stream } from './api.js';
import { showCode } from './code.js';
import { $, counted, input, messageOf, statusLine } from './dom.js';
import { follow } from './follow.js';
import { MessageView } from './message.js';
import { isDrafting, requestFields } from './settings.js';
import { inTab, store, stored } from './storage.js';

/** Name under which the conversation is stored. */
const STORED = 'ptp-conversation';

/** @type {Message[]} */
let conversation = [];

/** Aborts the current answer. @type {AbortController | undefined} */
let running;

const showEnd = follow(document.documentElement, document);

export function stopChat() {
  running?.abort();
}

const say = statusLine('chat-status');

/** Shows the buttons that make sense now. */
function showButtons() {
  const isRunning = running !== undefined;
  const hasMessages = conversation.length > 0;
  $('chat-stop').hidden = !isRunning;
  /** @type {HTMLElement} */ (document.querySelector('#composer [type=submit]')).hidden = isRunning;
  $('regenerate').hidden = isRunning || !hasMessages;
  $('new-chat').hidden = isRunning || !hasMessages;
}

/** Returns the conversation with a new message, which replaces an unanswered message. @param {string} content */
function continued(content) {
  const answered = isUnanswered() ? conversation.slice(0, -1) : conversation;
  return [...answered, /** @type {Message} */ ({ role: 'user', content })];
}

const isUnanswered = () => conversation.at(-1)?.role === 'user';

/** Body of a request for the next answer. @param {Message[]} messages @param {boolean} [draw] */
function bodyOf(messages, draw) {
  const system = input('system').value.trim();
  return {
    model: 'default',
    messages: [
      ...(system === '' ? [] : [{ role: 'system', content: system }]),
      ...messages.map(({ role, content }) => ({ role, content })),
    ],
    ...requestFields(draw),
    stream: true,
    ...(!isDrafting() && { ptp: { draft: false } }),
  };
}

/** Requests the answer to the last message. */
async function answer() {
  const mine = new AbortController();
  running = mine;
  showButtons();
  say('Generating …');
  const body = { ...bodyOf(conversation), stream_options: { include_usage: true } };
  const view = new MessageView({ role: 'assistant', content: '' }, showEnd);
  $('messages').append(view.element);
  showEnd();
  const { message } = view;
  try {
    const finish = await receive(view, body, mine.signal);
    say(finish === 'length' ? 'The answer reached the maximum number of tokens.' : '');
  } catch (error) {
    if (mine.signal.aborted) say('Stopped.');
    else say(messageOf(error), true);
  } finally {
    running = undefined;
    if (message.content === '' && !message.reasoning) view.element.remove();
    else conversation.push(message);
    save();
    showButtons();
  }
  view.draw();
  input('message').focus({ preventScroll: true });
}

/**
 * Adds the pieces of an answer to its view.
 *
 * @param {MessageView} view
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {Promise<string | undefined>} the reason why the answer ended
 */
async function receive(view, body, signal) {
  const onWait = (/** @type {string | undefined} */ reason) => say(reason ?? 'Generating …', Boolean(reason));
  let finish;
  const sent = performance.now();
  for await (const { choices, usage } of stream('v1/chat/completions', body, signal, onWait)) {
    const [choice] = choices;
    if (choice) view.add({ content: choice.delta.content ?? '', reasoning: choice.delta.reasoning_content ?? '' });
    finish = choice?.finish_reason ?? finish;
    if (!usage) continue;
    const seconds = ((performance.now() - sent) / 1000).toFixed(1);
    view.note.textContent = `${counted(usage.completion_tokens, 'token')} in ${seconds} s`;
  }
  return finish;
}

/** @param {Message} message */
function show(message) {
  $('messages').append(new MessageView(message).element);
}

function save() {
  store(STORED, conversation, inTab);
}

function send() {
  const content = input('message').value.trim();
  if (running || content === '') return;
  if (isUnanswered()) $('messages').lastElementChild?.remove();
  conversation = continued(content);
  show({ role: 'user', content });
  input('message').value = '';
  answer();
}

/** Requests another answer to the reader's last message. */
function regenerate() {
  if (running) return;
  if (conversation.at(-1)?.role === 'assistant') {
    conversation.pop();
    $('messages').lastElementChild?.remove();
  }
  answer();
}

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
input('message').addEventListener('keydown', (event) => {
  // On a phone, the keyboard has no other key for a new line.
  const isPhone = matchMedia('(pointer: coarse)').matches;
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || isPhone) return;
  event.preventDefault();
  send();
});
$('chat-stop').addEventListener('click', stopChat);
$('regenerate').addEventListener('click', regenerate);
$('new-chat').addEventListener('click', () => {
  conversation = [];
  $('messages').replaceChildren();
  say('');
  save();
  showButtons();
  input('message').focus();
});
document.querySelector('#composer .show-code')?.addEventListener('click', () => {
  const content = input('message').value.trim();
  const messages = content === '' && isUnanswered() ? conversation : continued(content || 'Hello');
  showCode({ isChat: true, body: bodyOf(messages, false) });
});

input('system').value = stored('ptp-system') ?? '';
/** @type {HTMLDetailsElement} */ ($('system-prompt')).open = input('system').value !== '';
input('system').addEventListener('input', () => store('ptp-system', input('system').value));
conversation = stored(STORED, inTab) ?? [];
for (const message of conversation) show(message);
showButtons();
