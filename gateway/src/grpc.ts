import { PtpError } from '@ptp/protocol/errors';
import {
  type DraftOptions,
  type GenerateRequest,
  GenerationService,
  type TokenizeRequest,
} from '@ptp/protocol/gen/ptp/v1/generation_pb';
import { receivedSampling } from '@ptp/protocol/sampling-params';
import { type CallContext, type ImplementedService, implement } from '@ptp/protocol/server';
import { receivedAdjustments } from '@ptp/protocol/token-adjustments';
import { invalidField, parseFields, requireField, requireTokens } from '@ptp/protocol/validation';
import { admit, type OnRejection, reportRejection } from './access/admission.ts';
import type { ApiKeys, Client } from './access/api-keys.ts';
import type { GenerationRequest, GenerationStep, ModelInfo } from './decode/types.ts';
import { inSlices } from './grammar/slices.ts';
import type { OutputConstraint } from './grammar/types.ts';
import { formGrammar } from './openai/output-format.ts';
import { checkModel, draftMode, randomSeed, stopStrings, TOP_LOGPROBS_LIMIT } from './openai/request.ts';
import type { EndpointParts } from './openai/respond.ts';
import { STOP_TOKEN_LIMIT } from './openai/sampling.ts';
import { LONGEST_DRAFT } from './settings.ts';
import { beginning, encodeText, orBeginning, roomAfter } from './text/encode.ts';
import { type TextPiece, TextStream } from './text/text-stream.ts';
import type { Tokenizer } from './text/tokenizer.ts';
import { object } from './validation.ts';

export interface GenerationParts extends Pick<EndpointParts, 'generator' | 'tokenizer' | 'grammars' | 'admission'> {
  readonly keys: ApiKeys;
  readonly onRejection?: OnRejection;
}

/** Implements ptp.v1.GenerationService with a generator. */
export function generationService(parts: GenerationParts): ImplementedService {
  return implement(GenerationService, {
    generate: (request, context) => generate(parts, request, context),
    tokenize: (request, { metadata }) => {
      authenticate(parts, metadata);
      return tokenize(parts, request);
    },
    getModel: ({ model }, { metadata }) => {
      authenticate(parts, metadata);
      return getModel(parts, model);
    },
  });
}

/**
 * Returns the client whose key the call carries, after counting the call against its rate limit.
 *
 * @throws PtpError `unauthenticated` or `resource_exhausted`
 */
function authenticate({ keys, onRejection }: GenerationParts, metadata: CallContext['metadata']): Client | undefined {
  return reporting(onRejection, () => {
    const client = keys.client(metadata.get('authorization')[0]?.toString());
    client?.take();
    return client;
  });
}

/** Runs `work`, and reports its error if that is a rejection. */
function reporting<T>(onRejection: OnRejection | undefined, work: () => T): T {
  try {
    return work();
  } catch (error) {
    reportRejection(error, onRejection);
    throw error;
  }
}

function tokenize({ generator, tokenizer }: GenerationParts, { model: name, text, withoutBeginning }: TokenizeRequest) {
  const { model } = generator;
  checkModel(name || 'default', model);
  const ids = encodeText(text, tokenizer, model, 'text');
  return { ids: withoutBeginning ? ids.slice(beginning(model).length) : ids };
}

function getModel({ generator }: GenerationParts, name: string) {
  const { model } = generator;
  checkModel(name || 'default', model);
  const health = generator.health();
  const { vocabulary: vocabularySize, engine = '', quantization = '', candidateLimit = 0 } = { ...model, ...health };
  const { modelId, contextLength, endOfText } = model;
  const { verifier: verifierReady, drafter: drafterReady, batchInvariant } = health;
  const served = { verifierReady, drafterReady, ...(batchInvariant !== undefined && { batchInvariant }) };
  return { modelId, vocabularySize, contextLength, endOfText, engine, quantization, candidateLimit, ...served };
}

async function* generate(parts: GenerationParts, message: GenerateRequest, { signal, metadata }: CallContext) {
  const { generator, admission, tokenizer, onRejection } = parts;
  const client = authenticate(parts, metadata);
  const traceparent = metadata.get('traceparent')[0]?.toString();
  const request = await inSlices(() => parseRequest(message, parts, traceparent));
  const leave = reporting(onRejection, () => admit(admission, client, 1));
  try {
    const stream = new TextStream(tokenizer, message.stop, message.adjustments?.heldBackUntil);
    let seed = request.seed;
    for await (const step of generator.generate(request, signal)) {
      const piece = stream.add(step.tokens, step.finish);
      yield { ...stepMessage(step, piece), seed };
      if (piece.finish) return;
      // Only the first message has the seed.
      seed = 0n;
    }
  } finally {
    leave();
  }
}

/** Schema of the fields that have the same limits as in the HTTP API. */
const checkedFields = object({ stop: stopStrings, draft: object({ mode: draftMode.optional() }).optional() });

/** Validates a request. @throws PtpError naming the field, its limit and the value */
function parseRequest(
  message: GenerateRequest,
  { generator: { model }, tokenizer, grammars }: GenerationParts,
  traceparent: string | undefined,
): GenerationRequest {
  if (message.model !== '') checkModel(message.model, model);
  const { stop, draft } = message;
  const fields = parseFields(checkedFields, { stop, draft: draft && { mode: draft.mode || undefined } });
  const constraint = constraintOf(message);
  const prompt = promptOf(message, model, tokenizer);
  const room = roomAfter(prompt, model, 'prompt');
  return {
    prompt,
    sampling: receivedSampling(message.sampling, model.vocabulary),
    ...tokenFields(message, model),
    ...(constraint && { grammar: grammars.start(constraint) }),
    seed: message.seed ?? randomSeed(),
    maxTokens: message.maxTokens === 0 ? room : message.maxTokens,
    ...(draft && draftFields(draft, fields.draft?.mode)),
    ...(traceparent && { traceparent }),
  };
}

/**
 * Returns the constraint on the output, or undefined if any text is allowed.
 *
 * @throws PtpError `invalid_argument` naming the field or the unsupported part of the schema
 */
function constraintOf({ form, ignoreEndOfText, adjustments }: GenerateRequest): OutputConstraint | undefined {
  if (form.case === undefined || (form.case === 'jsonObject' && !form.value)) return undefined;
  const absent = 'absent with `json_schema`, `json_object` or `regex`';
  if (ignoreEndOfText) throw invalidField('ignore_end_of_text', absent, true);
  const heldBackUntil = adjustments?.heldBackUntil ?? 0;
  if (heldBackUntil > 0) throw invalidField('adjustments.held_back_until', absent, heldBackUntil);
  const [name, field] = FORMS[form.case];
  return { grammar: formGrammar({ [name]: form.value }, field), key: `${form.case} ${form.value}` };
}

/** Names of the forms in the HTTP API, and of their fields here. */
const FORMS = {
  jsonSchema: ['json', 'json_schema'],
  jsonObject: ['json_object', 'json_object'],
  regex: ['regex', 'regex'],
} as const;

/**
 * Validates the fields that contain token ids.
 *
 * @throws PtpError `invalid_argument` or `out_of_range`, naming the field, its limit and the value
 */
function tokenFields(message: GenerateRequest, { vocabulary }: ModelInfo) {
  const { stopTokens, topLogProbabilities: topCount, ignoreEndOfText } = message;
  requireAtMost('top_log_probabilities', TOP_LOGPROBS_LIMIT, topCount);
  requireAtMost('stop_tokens', STOP_TOKEN_LIMIT, stopTokens.length);
  requireTokens('stop_tokens', stopTokens, vocabulary);
  const adjustments = receivedAdjustments(message.adjustments, vocabulary);
  return { stopTokens, logprobs: true, topCount, ignoreEndOfText, ...(adjustments && { adjustments }) };
}

function draftFields(
  { off, length, promptLookup: lookup }: DraftOptions,
  mode: NonNullable<GenerationRequest['draftLimits']>['mode'],
) {
  requireAtMost('draft.length', LONGEST_DRAFT, length);
  const draftLimits = { ...(length > 0 && { length }), ...(mode && { mode }), ...(lookup !== undefined && { lookup }) };
  return { drafting: !off, draftLimits };
}

function requireAtMost(field: string, limit: number, value: number): void {
  requireField(value <= limit, field, `at most ${limit}`, value, 'out_of_range');
}

function promptOf({ prompt }: GenerateRequest, model: ModelInfo, tokenizer: Tokenizer): readonly number[] {
  switch (prompt.case) {
    case 'text':
      return orBeginning(encodeText(prompt.value, tokenizer, model, 'prompt'), model);
    case 'tokens':
      requireTokens('prompt.tokens', prompt.value.ids, model.vocabulary);
      return orBeginning(prompt.value.ids, model);
    default:
      throw new PtpError('invalid_argument', '`prompt` is missing: set text or tokens', { field: 'prompt' });
  }
}

function stepMessage(
  { tokens, logProbabilities, tops = [], truncated = false, stats }: GenerationStep,
  { text, count, finish }: TextPiece,
) {
  const { step, mode, reason, source, offered, budget, drafted, accepted } = stats;
  return {
    text,
    tokens: tokens.slice(0, count),
    logProbabilities: logProbabilities.slice(0, count),
    top: tops
      .slice(0, count)
      .map(({ ids, logProbabilities: logs }) => ({ ids: [...ids], logProbabilities: [...logs] })),
    finishReason: finish ?? '',
    truncated,
    step: {
      ...{ step, mode, reason, source, offered, budget, drafted, accepted },
      stepUs: stats.stepMicros,
      aheadUs: stats.aheadMicros,
      verifyUs: stats.verifyMicros,
      draftUs: stats.draftMicros,
      redraftUs: stats.redraftMicros,
      verifyRunUs: stats.verifyRunMicros,
      draftRunUs: stats.draftRunMicros,
    },
  };
}
