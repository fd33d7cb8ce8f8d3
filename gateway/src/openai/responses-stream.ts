import { openAiError } from '../http/errors.ts';
import { newId } from '../http/ids.ts';
import { type ChoiceDelta, warningOf } from './choices.ts';
import { logprobEntries, type TokenLogprob } from './logprobs.ts';
import type { ResponsesRequest } from './responses.ts';
import type { ResponseWriter, Run, ServerEvent } from './stream.ts';
import { type CallPiece, ToolCallReader } from './tool-calls.ts';

type Status = 'in_progress' | 'completed' | 'incomplete';

/** Item in the form in which it is sent. Each event is serialized before its item changes again. */
interface Message {
  readonly type: 'message';
  readonly id: string;
  status: Status;
  readonly role: 'assistant';
  readonly content: [{ type: 'output_text'; text: string; annotations: []; logprobs: object[] }];
}

interface Call {
  readonly type: 'function_call';
  readonly id: string;
  readonly call_id: string;
  readonly name: string;
  arguments: string;
  status: Status;
}

/** Writes answers of the responses API: a list of items, where only the last one can still be in progress. */
export class ResponsesWriter implements ResponseWriter {
  readonly #request: ResponsesRequest;
  readonly #run: Run;
  readonly #id = newId('resp_');
  readonly #created = Math.floor(Date.now() / 1000);
  readonly #items: (Message | Call)[] = [];
  readonly #reader: ToolCallReader | undefined;
  #finish: 'stop' | 'length' | undefined;
  #eventCount = 0;
  /** Number of characters of the content. */
  #length = 0;
  /** Tokens whose text is held back. */
  readonly #waiting: TokenLogprob[] = [];

  constructor(request: ResponsesRequest, run: Run) {
    this.#request = request;
    this.#run = run;
    this.#reader = request.calls && new ToolCallReader(request.calls);
  }

  *start(): Iterable<ServerEvent> {
    yield this.#event('response.created', { response: this.whole() });
    yield this.#event('response.in_progress', { response: this.whole() });
  }

  *add({ text: raw, tokens = [], trace, finish }: ChoiceDelta): Generator<ServerEvent> {
    const { text, calls } = this.#reader?.push(raw) ?? { text: raw, calls: [] };
    const rest = finish && this.#reader ? this.#reader.end(finish) : '';
    const delta = text + rest;
    const logprobs = logprobEntries(this.#tokensOf(delta, tokens, finish !== undefined));
    const hasContent = delta !== '' || logprobs.length > 0 || (trace !== undefined && !this.#reader);
    if (hasContent && this.#items.at(-1)?.type !== 'function_call') {
      const message = yield* this.#message();
      message.content[0].text += delta;
      message.content[0].logprobs.push(...logprobs);
      const fields = { ...this.#position(message), content_index: 0, delta, logprobs, ...(trace && { ptp: trace }) };
      yield this.#event('response.output_text.delta', fields);
    }
    for (const piece of calls) yield* this.#call(piece);
    if (!finish) return;
    // An empty answer still has a message.
    if (this.#items.length === 0) yield* this.#message();
    this.#finish = finish;
    yield* this.#close(this.#status);
  }

  *end(): Iterable<ServerEvent> {
    yield this.#event(`response.${this.#status}`, { response: this.whole() });
  }

  fail(error: unknown): ServerEvent {
    const { message } = openAiError(error).body.error;
    return this.#event('response.failed', { response: this.whole({ code: 'server_error', message }) });
  }

  whole(error: object | null = null): object {
    const { instructions, metadata, maxTokens, choice, echoed } = this.#request;
    const { temperature, topP } = choice.sampling;
    return {
      id: this.#id,
      object: 'response',
      created_at: this.#created,
      status: error ? 'failed' : this.#status,
      error,
      incomplete_details: this.#finish === 'length' ? { reason: 'max_output_tokens' } : null,
      instructions,
      max_output_tokens: maxTokens.value ?? null,
      metadata,
      model: this.#run.modelId,
      output: this.#finish ? this.#items : [],
      ...echoed,
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      store: false,
      temperature,
      top_p: topP,
      truncation: 'disabled',
      usage: this.#finish ? this.#usage() : null,
      ...warningOf(this.#run.figures.warnings),
    };
  }

  /**
   * Returns the tokens of the content that `delta` completes. If the answer may contain calls, text is held back, and
   * the tokens with it: which tokens belong to the content does not depend on how they are grouped into steps.
   */
  #tokensOf(delta: string, tokens: readonly TokenLogprob[], isLast: boolean): readonly TokenLogprob[] {
    if (!this.#reader) return tokens;
    this.#waiting.push(...tokens);
    this.#length += [...delta].length;
    if (delta === '' && !isLast) return [];
    // A token that ends the text has no characters.
    const belongs = ({ offset, bytes }: TokenLogprob) =>
      offset < this.#length || (isLast && offset === this.#length && bytes.length === 0);
    const next = this.#waiting.findIndex((token) => !belongs(token));
    return this.#waiting.splice(0, next < 0 ? this.#waiting.length : next);
  }

  get #status(): Status {
    if (!this.#finish) return 'in_progress';
    return this.#finish === 'stop' ? 'completed' : 'incomplete';
  }

  #event(type: string, fields: object): ServerEvent {
    return { name: type, data: { type, sequence_number: this.#eventCount++, ...fields } };
  }

  /** Returns the message in progress, or opens a new one. */
  *#message(): Generator<ServerEvent, Message> {
    const last = this.#items.at(-1);
    if (last?.type === 'message') return last;
    const part = { type: 'output_text' as const, text: '', annotations: [] as [], logprobs: [] };
    const head = { type: 'message', id: newId('msg_'), status: 'in_progress', role: 'assistant' } as const;
    const message: Message = { ...head, content: [part] };
    yield* this.#open(message, { ...head, content: [] });
    yield this.#event('response.content_part.added', { ...this.#position(message), content_index: 0, part });
    return message;
  }

  *#call({ id, name = '', arguments: text }: CallPiece): Generator<ServerEvent> {
    if (id !== undefined) {
      yield* this.#close('completed');
      const head = { type: 'function_call', id: newId('fc_'), call_id: id, name } as const;
      const call: Call = { ...head, arguments: '', status: 'in_progress' };
      yield* this.#open(call, call);
    }
    const call = this.#items.at(-1);
    if (call?.type !== 'function_call' || text === '') return;
    call.arguments += text;
    yield this.#event('response.function_call_arguments.delta', { ...this.#position(call), delta: text });
  }

  *#open(item: Message | Call, shown: object): Generator<ServerEvent> {
    this.#items.push(item);
    yield this.#event('response.output_item.added', { output_index: this.#items.length - 1, item: shown });
  }

  /** Completes the item in progress, if there is one. */
  *#close(status: Status): Generator<ServerEvent> {
    const item = this.#items.at(-1);
    if (item?.status !== 'in_progress') return;
    item.status = status;
    const position = this.#position(item);
    if (item.type === 'message') {
      const [part] = item.content;
      const { text, logprobs } = part;
      yield this.#event('response.output_text.done', { ...position, content_index: 0, text, logprobs });
      yield this.#event('response.content_part.done', { ...position, content_index: 0, part });
    } else {
      const { name, arguments: text } = item;
      yield this.#event('response.function_call_arguments.done', { ...position, name, arguments: text });
    }
    yield this.#event('response.output_item.done', { output_index: position.output_index, item });
  }

  #position(item: Message | Call) {
    return { item_id: item.id, output_index: this.#items.indexOf(item) };
  }

  #usage() {
    const { usage } = this.#run.figures;
    return {
      input_tokens: usage.prompt_tokens,
      input_tokens_details: usage.prompt_tokens_details,
      output_tokens: usage.completion_tokens,
      output_tokens_details: { reasoning_tokens: 0, ...usage.completion_tokens_details },
      total_tokens: usage.total_tokens,
    };
  }
}
