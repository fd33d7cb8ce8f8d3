import { authorization, requireKey } from './key.js';

/** Time in milliseconds without an event after which the page checks whether the server is ready. */
const SILENCE = 2000;

/**
 * Sends a request with the API key, if there is one.
 *
 * @param {string} path
 * @param {RequestInit} [init]
 * @throws {Error} with the server's message, or with the reason why there is none
 */
export async function ask(path, init = {}) {
  const response = await fetch(path, { ...init, headers: { ...authorization(), ...init.headers } }).catch((error) => {
    if (init.signal?.aborted) throw error;
    throw new Error('The server does not respond. Check that it is running, then try again.');
  });
  if (response.ok) return response;
  const body = await response.json().catch(() => undefined);
  const message = body?.error?.message ?? `The server returned status ${response.status}.`;
  if (response.status === 401) requireKey(message);
  throw new Error(message);
}

/**
 * Posts a request and yields the objects of its stream.
 *
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} signal
 * @param {(reason: string | undefined) => void} onWait called with the reason if the server stays silent because it is
 *   not ready, and with undefined once the stream continues
 * @throws {Error} with the server's message, or with the reason why there is none
 */
export async function* stream(path, body, signal, onWait) {
  const silence = new Silence(onWait);
  try {
    const headers = { 'content-type': 'application/json' };
    const response = await ask(path, { method: 'POST', headers, body: JSON.stringify(body), signal });
    for await (const data of events(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
      silence.end();
      if (data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
      silence.begin();
    }
  } catch (error) {
    if (error instanceof TypeError && !signal.aborted) throw new Error(LOST);
    throw error;
  } finally {
    silence.end();
  }
  throw new Error(LOST);
}

const LOST = 'The connection to the server was lost before the answer was complete. Try again.';

/** Reports that the server is not ready while a stream is silent. */
class Silence {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #reported = false;

  /** @param {(reason: string | undefined) => void} onWait */
  constructor(onWait) {
    this.onWait = onWait;
    this.begin();
  }

  begin() {
    this.#timer = setTimeout(() => this.#check(), SILENCE);
  }

  end() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#reported) this.onWait(undefined);
    this.#reported = false;
  }

  async #check() {
    const timer = this.#timer;
    const reasons = await fetch('readyz')
      .then((response) => response.json())
      .then((body) => body.reasons.join(', '))
      .catch(() => 'the server does not respond');
    if (timer !== this.#timer) return;
    if (reasons !== '') {
      this.#reported = true;
      this.onWait(`Waiting: ${reasons}. The text continues once the server has recovered.`);
    }
    this.begin();
  }
}

/**
 * Parses server-sent events and yields their data.
 *
 * @param {ReadableStream<Uint8Array>} body
 */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) if (part.startsWith('data: ')) yield part.slice('data: '.length);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
