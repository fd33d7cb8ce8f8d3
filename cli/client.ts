/** A server with OpenAI's API; of ours also what each step did. */

export interface ServerOptions {
  /** Up to and with `/v1`. */
  readonly url: string;
  readonly key?: string | undefined;
}

export interface StreamedToken {
  readonly text: string;
  /** `drafter` or `prompt lookup` for tokens that were proposed and accepted, `target` for the model's own. */
  readonly source: string;
}

/** What came with one chunk of a stream. */
export interface Piece {
  readonly text: string;
  /** Absent from servers that tell nothing of steps. */
  readonly tokens?: readonly StreamedToken[];
}

interface Chunk {
  readonly error?: { readonly message: string };
  readonly choices?: readonly { readonly text?: string; readonly delta?: { readonly content?: string | null } }[];
  readonly ptp?: { readonly tokens: readonly StreamedToken[] };
}

/** Says in words why a request has failed. */
export class RequestError extends Error {}

export class Client {
  readonly #options: ServerOptions;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** The server's models; `ours` says whether it is a ptp-server, which knows the field `ptp`. */
  async models(): Promise<{ ids: string[]; ours: boolean }> {
    const response = await this.#fetch('models', {});
    const { data = [] } = (await response.json()) as { data?: { id: string; owned_by?: string }[] };
    return { ids: data.map(({ id }) => id), ours: data.some((model) => model.owned_by === 'ptp') };
  }

  /**
   * Streams /completions or /chat/completions.
   *
   * @throws RequestError with the server's own message
   */
  async *stream(path: 'completions' | 'chat/completions', body: object, signal?: AbortSignal): AsyncGenerator<Piece> {
    const init = { method: 'POST', body: JSON.stringify({ ...body, stream: true }), ...(signal && { signal }) };
    const response = await this.#fetch(path, init);
    for await (const data of events(response.body as ReadableStream<Uint8Array>)) {
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
      throw new RequestError(
        `${url} cannot be reached: ${(error.cause as Error | undefined)?.message ?? error.message}`,
      );
    });
    if (response.ok) return response;
    const body = (await response.json().catch(() => ({}))) as { error?: { message?: string } };
    throw new RequestError(body.error?.message ?? `${url} answered ${response.status}`);
  }
}

/** The data of server-sent events. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of body) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part.startsWith('data: ')) yield part.slice('data: '.length);
  }
}
