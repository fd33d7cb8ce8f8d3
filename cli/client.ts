import { EventSourceParserStream } from 'eventsource-parser/stream';

export interface ServerOptions {
  /** Base URL, including `/v1`. */
  readonly url: string;
  readonly key?: string | undefined;
}

export interface StreamedToken {
  readonly text: string;
  /** Source of the token: `drafter` or `prompt lookup` for accepted drafts, `target` for the model's own token. */
  readonly source: string;
}

/** One chunk of a streamed answer. */
export interface Piece {
  readonly text: string;
  /** Tokens of the chunk. Only ptp-server sends them. */
  readonly tokens?: readonly StreamedToken[];
}

interface Chunk {
  readonly error?: { readonly message: string };
  readonly choices?: readonly { readonly text?: string; readonly delta?: { readonly content?: string | null } }[];
  readonly ptp?: { readonly tokens: readonly StreamedToken[] };
}

interface ErrorFields {
  readonly message?: string;
  readonly code?: string | null;
  readonly param?: string | null;
}

/** A failed request. The message is for the user. */
export class RequestError extends Error {
  /**
   * True if a shorter conversation may help, because the prompt fills the context or leaves too little room for
   * `max_tokens`.
   */
  readonly isTooLong: boolean;

  constructor(message: string, { code, param }: ErrorFields = {}) {
    super(message);
    this.isTooLong = code === 'context_length_exceeded' || param === 'max_tokens';
  }
}

/** A client for servers with OpenAI's API. */
export class Client {
  readonly #options: ServerOptions;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** Returns the server's model ids. `isPtp` is true for a ptp-server, which accepts the field `ptp`. */
  async models(): Promise<{ ids: string[]; isPtp: boolean }> {
    const response = await this.#fetch('models', {});
    const { data = [] } = (await response.json()) as { data?: { id: string; owned_by?: string }[] };
    return { ids: data.map(({ id }) => id), isPtp: data.some((model) => model.owned_by === 'ptp') };
  }

  /**
   * Streams an answer.
   *
   * @throws RequestError with the server's message
   */
  async *stream(path: 'completions' | 'chat/completions', body: object, signal?: AbortSignal): AsyncGenerator<Piece> {
    const init = { method: 'POST', body: JSON.stringify({ ...body, stream: true }), ...(signal && { signal }) };
    const response = await this.#fetch(path, init);
    const events = response.body?.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()) ?? [];
    for await (const { data } of events) {
      if (data === '[DONE]') return;
      const { error, choices = [], ptp } = JSON.parse(data) as Chunk;
      if (error) throw new RequestError(error.message);
      const text = choices[0]?.text ?? choices[0]?.delta?.content ?? '';
      if (text !== '' || ptp) yield { text, ...(ptp && { tokens: ptp.tokens }) };
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const { url, key } = this.#options;
    const headers = { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) };
    const response = await fetch(`${url.replace(/\/$/, '')}/${path}`, { ...init, headers }).catch((error: Error) => {
      if (init.signal?.aborted) throw error;
      const reason = (error.cause as Error | undefined)?.message ?? error.message;
      throw new RequestError(`${url} cannot be reached (${reason}): start a server with npm start, or set --url`);
    });
    if (response.ok) return response;
    const { error = {} } = (await response.json().catch(() => ({}))) as { error?: ErrorFields };
    const { message = `${url} returned status ${response.status}` } = error;
    const hint = response.status === 404 && !/\/v1\/?$/.test(url) ? ': the URL of an API usually ends in /v1' : '';
    throw new RequestError(message + hint, error);
  }
}
