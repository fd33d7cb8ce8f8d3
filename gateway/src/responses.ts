import { randomUUID } from 'node:crypto';
import { toPtpError } from '@ptp/core/errors.ts';
import type { FastifyReply } from 'fastify';
import type { TokenLogprob } from './logprobs.ts';
import { openAiError } from './openai-error.ts';
import { takeOver } from './reply.ts';
import type { Run, StreamOptions, Writer } from './respond.ts';
import type { ResponsesRequest } from './responses-schema.ts';
import { EventStream } from './sse.ts';

/** https://platform.openai.com/docs/api-reference/responses: one message of one text. */
export function responsesWriter(asked: ResponsesRequest): Writer {
  return {
    whole: async (run) => {
      const answer = new Answer(asked, run);
      for await (const { text, tokens, finish } of run.deltas) answer.add(text, tokens, finish);
      return answer.response();
    },
    stream: (run, options, reply) => stream(new Answer(asked, run), run, options, reply),
  };
}

/** Events in the order of OpenAI's API; an error after the first one is `response.failed`, and the last. */
async function stream(answer: Answer, run: Run, options: StreamOptions, reply: FastifyReply): Promise<void> {
  const { deltas } = run;
  let next = await deltas.next();
  const events = new EventStream(takeOver(reply), options.stallMillis);
  let sequence_number = 0;
  const send = (type: string, fields: object) =>
    events.send({ type, sequence_number: sequence_number++, ...fields }, type);
  const place = { item_id: answer.itemId, output_index: 0, content_index: 0 };
  try {
    await send('response.created', { response: answer.response() });
    await send('response.in_progress', { response: answer.response() });
    await send('response.output_item.added', { output_index: 0, item: { ...answer.item(), content: [] } });
    await send('response.content_part.added', { ...place, part: answer.part() });
    for (; !next.done; next = await deltas.next()) {
      const { text, tokens, trace, finish } = next.value;
      answer.add(text, tokens, finish);
      if (text === '' && !tokens?.length && !trace) continue;
      const told = { logprobs: logprobsOf(tokens), ...(trace && { ptp: trace }) };
      await send('response.output_text.delta', { ...place, delta: text, ...told });
    }
    await send('response.output_text.done', { ...place, text: answer.text, logprobs: answer.part().logprobs });
    await send('response.content_part.done', { ...place, part: answer.part() });
    await send('response.output_item.done', { output_index: 0, item: answer.item() });
    await send(`response.${answer.status}`, { response: answer.response() });
  } catch (error) {
    options.onError(error);
    const { body } = openAiError(error);
    const failed = { code: 'server_error', message: body.error.message };
    if (toPtpError(error).code !== 'cancelled') {
      await send('response.failed', { response: answer.response(failed) }).catch(() => {});
    }
  } finally {
    await deltas.return(undefined);
    events.end();
  }
}

/** The answer as it grows. */
class Answer {
  readonly itemId = newId('msg_');
  text = '';
  readonly #asked: ResponsesRequest;
  readonly #run: Run;
  readonly #id = newId('resp_');
  readonly #created = Math.floor(Date.now() / 1000);
  readonly #tokens: TokenLogprob[] = [];
  #finish: 'stop' | 'length' | undefined;

  constructor(asked: ResponsesRequest, run: Run) {
    this.#asked = asked;
    this.#run = run;
  }

  add(text: string, tokens: readonly TokenLogprob[] | undefined, finish: 'stop' | 'length' | undefined): void {
    this.text += text;
    this.#tokens.push(...(tokens ?? []));
    this.#finish = finish;
  }

  get status(): 'in_progress' | 'completed' | 'incomplete' {
    if (!this.#finish) return 'in_progress';
    return this.#finish === 'stop' ? 'completed' : 'incomplete';
  }

  part() {
    return { type: 'output_text', text: this.text, annotations: [], logprobs: logprobsOf(this.#tokens) };
  }

  item() {
    return { type: 'message', id: this.itemId, status: this.status, role: 'assistant', content: [this.part()] };
  }

  response(error: object | null = null): object {
    const { instructions, metadata, maxTokens = null, choosing } = this.#asked;
    const { temperature, topP } = choosing.sampling;
    return {
      id: this.#id,
      object: 'response',
      created_at: this.#created,
      status: error ? 'failed' : this.status,
      error,
      incomplete_details: this.#finish === 'length' ? { reason: 'max_output_tokens' } : null,
      instructions,
      max_output_tokens: maxTokens,
      metadata,
      model: this.#run.modelId,
      output: this.#finish ? [this.item()] : [],
      parallel_tool_calls: true,
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      store: false,
      temperature,
      text: { format: { type: 'text' } },
      tool_choice: 'auto',
      tools: [],
      top_p: topP,
      truncation: 'disabled',
      usage: this.#finish ? this.#usage() : null,
    };
  }

  #usage() {
    const { usage } = this.#run;
    return {
      input_tokens: usage.prompt_tokens,
      input_tokens_details: usage.prompt_tokens_details,
      output_tokens: usage.completion_tokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: usage.total_tokens,
    };
  }
}

function logprobsOf(tokens: readonly TokenLogprob[] | undefined): object[] {
  return (tokens ?? []).map(({ offset: _, top, ...chance }) => ({ ...chance, top_logprobs: top }));
}

const newId = (prefix: string): string => prefix + randomUUID().replaceAll('-', '');
