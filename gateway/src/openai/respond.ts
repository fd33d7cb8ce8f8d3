import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Admission, admit } from '../access/admission.ts';
import { clientOf } from '../access/http-hook.ts';
import type { GenerationRequest, Generator } from '../decode/types.ts';
import type { GrammarCache } from '../grammar/cache.ts';
import { logError } from '../http/errors.ts';
import { disconnectSignal } from '../http/sse.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import { checkLength } from '../text/encode.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type ChoiceRequest, generateChoices, newUsage, type ResponseFigures } from './choices.ts';
import type { CommonRequest } from './request.ts';
import { type ResponseWriter, type Run, type StreamSettings, streamResponse, wholeResponse } from './stream.ts';

/** Parts of the server that the text endpoints use. */
export interface EndpointParts {
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  readonly grammars: GrammarCache;
  readonly admission: Admission;
  readonly settings: StreamSettings;
}

/** Validated request, with the functions by which its endpoint prepares and answers it. */
export interface EndpointRequest {
  readonly request: CommonRequest;
  /** Number of sequences to generate: choices times prompts. */
  readonly sequences: number;
  readonly newWriter: (run: Run) => ResponseWriter;
  /** Encodes the prompts. Called after admission, so that rejected requests cost nothing. */
  readonly prepare: () => ChoiceRequest[] | Promise<ChoiceRequest[]>;
}

/** Admits a request, generates and answers. @returns the body, or undefined after a stream has ended */
export async function respond(
  { generator, tokenizer, grammars, admission, settings }: EndpointParts,
  http: FastifyRequest,
  reply: FastifyReply,
  { request, sequences, newWriter, prepare }: EndpointRequest,
): Promise<object | undefined> {
  const { model } = generator;
  const client = clientOf(http);
  const leave = admit(admission, client, sequences);
  try {
    const signal = disconnectSignal(reply.raw);
    const choices = await prepare();
    checkLength(request.prediction, tokenizer, model, 'prediction');
    const prediction = tokenizer.encodeContinued(request.prediction);
    const shared = {
      ...traceFields(http, request.stream),
      ...(prediction.length > 0 && { prediction }),
    };
    const { constraint } = request;
    const grammarOf = ({ healed }: ChoiceRequest) =>
      healed ? grammars.startAfter(healed, constraint) : constraint && grammars.start(constraint);
    const requests = choices.map((choice) => {
      const grammar = grammarOf(choice);
      return { ...choice, ...shared, ...(grammar && { grammar }) };
    });
    const figures: ResponseFigures = {
      usage: newUsage(requests.reduce((sum, { prompt }) => sum + prompt.length, 0) / request.n),
      warnings: new Set(request.constraint?.warnings),
    };
    const deltas = generateChoices(generator, tokenizer, requests, figures, signal);
    const { stream, includeUsage } = request;
    const run = { modelId: model.modelId, choices: requests.length, deltas, figures, stream, includeUsage };
    try {
      const writer = newWriter(run);
      let failed = false;
      const onError = (error: unknown) => {
        failed = true;
        logError(error, http);
      };
      const body = stream ? undefined : await wholeResponse(writer, run);
      if (stream) await streamResponse(writer, run, reply, settings, onError);
      if (!failed) http.server.outage.end();
      return body;
    } finally {
      http.log.info({ client: client?.name, choices: requests.length, stream, usage: figures.usage }, 'generated');
    }
  } finally {
    leave();
  }
}

/** Returns the properties of the HTTP request that appear in the generation's traces. */
function traceFields(http: FastifyRequest, stream: boolean): Partial<GenerationRequest> {
  const { traceparent } = http.headers;
  const operation = http.routeOptions.url === '/v1/completions' ? 'text_completion' : 'chat';
  return { requestId: http.id, operation, stream, ...(typeof traceparent === 'string' && { traceparent }) };
}
