import { randomBytes } from 'node:crypto';
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
import { requireTokens } from '@ptp/protocol/validation';
import type { Admission } from './access/admission.ts';
import type { ApiKeys, Client } from './access/api-keys.ts';
import { type OnRefusal, tellRefusal } from './access/refusals.ts';
import {
  beginning,
  type GenerationRequest,
  type Generator,
  type ModelInfo,
  type StepStats,
  type TopTokens,
} from './decode/types.ts';
import type { Form, Grammars } from './grammar/grammars.ts';
import { jsonSchemaGrammar } from './grammar/json-schema.ts';
import { jsonObject } from './grammar/json-text.ts';
import { parsedSchema, wholeRegex } from './openai/output-format.ts';
import { encodeText, orBeginning } from './openai/prompt.ts';
import { checkModel } from './openai/request.ts';
import { MOST_STOP_TOKENS, MOST_TOPS } from './openai/sampling-fields.ts';
import { DRAFT_MODES, LONGEST_DRAFT } from './settings.ts';
import { TextStream } from './text/text-stream.ts';
import type { Tokenizer } from './text/tokenizer.ts';
import { refuse } from './validation.ts';

export interface GenerationParts {
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  readonly admission: Admission;
  readonly keys: ApiKeys;
  readonly onRefusal?: OnRefusal;
}

/** Strings that may end an answer, as many as OpenAI allows. */
const STOP_LIMIT = 4;

/** ptp.v1.GenerationService over a generator. */
export function generationService(parts: GenerationParts): ImplementedService {
  return implement(GenerationService, {
    generate: (request, context) => generate(parts, request, context),
    tokenize: (request, { metadata }) => {
      admitted(parts, metadata);
      return tokenize(parts, request);
    },
    getModel: ({ model }, { metadata }) => {
      admitted(parts, metadata);
      return getModel(parts, model);
    },
  });
}

/** The key's holder, one of whose requests this is. @throws PtpError `unauthenticated`, `resource_exhausted` */
function admitted({ keys, onRefusal }: GenerationParts, metadata: CallContext['metadata']): Client | undefined {
  return refusing(onRefusal, () => {
    const client = keys.client(metadata.get('authorization')[0]?.toString());
    client?.take();
    return client;
  });
}

function refusing<T>(onRefusal: OnRefusal | undefined, work: () => T): T {
  try {
    return work();
  } catch (error) {
    tellRefusal(error, onRefusal);
    throw error;
  }
}

function tokenize({ generator, tokenizer }: GenerationParts, { model, text, withoutBeginning }: TokenizeRequest) {
  const { model: modelInfo } = generator;
  checkModel(model || 'default', modelInfo);
  const ids = encodeText(text, tokenizer, modelInfo, 'text');
  return { ids: withoutBeginning ? ids.slice(beginning(modelInfo).length) : ids };
}

function getModel({ generator }: GenerationParts, model: string) {
  const { model: modelInfo } = generator;
  checkModel(model || 'default', modelInfo);
  const { modelId, vocabulary: vocabularySize, contextLength, endOfText } = modelInfo;
  const { verifier: verifierReady, drafter: drafterReady } = generator.health();
  return { modelId, vocabularySize, contextLength, endOfText, verifierReady, drafterReady };
}

async function* generate(parts: GenerationParts, message: GenerateRequest, { signal, metadata }: CallContext) {
  const { generator, admission, tokenizer, onRefusal } = parts;
  const client = admitted(parts, metadata);
  const request = checkRequest(message, parts, metadata.get('traceparent')[0]?.toString());
  const leaves: (() => void)[] = [];
  try {
    // a key that has what it may have must not have places kept for it
    if (client) leaves.push(refusing(onRefusal, () => client.admission.enter(1)));
    leaves.push(refusing(onRefusal, () => admission.enter(1, client)));
    const text = new TextStream(message.stop);
    let first = true;
    for await (const { tokens, logProbabilities, tops = [], stats, finish } of generator.generate(request, signal)) {
      let piece = '';
      for (const token of tokens) {
        piece += text.push(tokenizer.bytes(token));
        if (text.stopped) break;
      }
      if (finish && !text.stopped) piece += text.end();
      const finishReason = text.stopped ? 'stop' : (finish ?? '');
      const seed = first ? request.seed : 0n;
      first = false;
      const told = { logProbabilities: [...logProbabilities], top: tops.map(topMessage) };
      yield { text: piece, tokens: [...tokens], ...told, step: stepMessage(stats), finishReason, seed };
      if (finishReason !== '') return;
    }
  } finally {
    for (const leave of leaves) leave();
  }
}

/** @throws PtpError naming field, limit and value */
function checkRequest(
  message: GenerateRequest,
  { generator: { model: modelInfo }, tokenizer, grammars }: GenerationParts,
  traceparent: string | undefined,
): GenerationRequest {
  if (message.model !== '') checkModel(message.model, modelInfo);
  if (message.stop.length > STOP_LIMIT || message.stop.includes('')) {
    const got = message.stop.includes('') ? 'an empty one' : message.stop.length;
    throw new PtpError('invalid_argument', `\`stop\` must be at most ${STOP_LIMIT} non-empty strings, got ${got}`, {
      field: 'stop',
    });
  }
  const form = formOf(message);
  const prompt = promptOf(message, modelInfo, tokenizer);
  const room = modelInfo.contextLength - prompt.length;
  if (room < 1) {
    const limit = modelInfo.contextLength - 1;
    throw new PtpError('out_of_range', `\`prompt\` must have at most ${limit} tokens, got ${prompt.length}`, {
      field: 'prompt',
    });
  }
  return {
    prompt,
    sampling: receivedSampling(message.sampling, modelInfo.vocabulary),
    ...choosing(message, modelInfo),
    ...(form && { grammar: grammars.start(form) }),
    seed: message.seed ?? randomBytes(8).readBigUInt64LE(),
    maxTokens: message.maxTokens === 0 ? room : message.maxTokens,
    ...draftOptions(message.draft),
    ...(traceparent && { traceparent }),
  };
}

/** @throws PtpError `invalid_argument` naming what of a schema cannot be followed */
function formOf({ form, ignoreEndOfText, adjustments }: GenerateRequest): Form | undefined {
  if (form.case === undefined || (form.case === 'jsonObject' && !form.value)) return undefined;
  if (ignoreEndOfText) refuse('ignore_end_of_text', 'absent where the answer has a form', true);
  const heldBackUntil = adjustments?.heldBackUntil ?? 0;
  if (heldBackUntil > 0) refuse('adjustments.held_back_until', 'absent where the answer has a form', heldBackUntil);
  const key = `${form.case} ${form.value}`;
  if (form.case === 'jsonSchema')
    return { grammar: jsonSchemaGrammar(parsedSchema(form.value, 'json_schema'), 'json_schema'), key };
  return { grammar: form.case === 'regex' ? wholeRegex(form.value, 'regex') : jsonObject, key };
}

function choosing(message: GenerateRequest, { vocabulary }: ModelInfo) {
  const { stopTokens, topLogProbabilities: topCount, ignoreEndOfText } = message;
  const check = (field: string, most: number, got: number) => {
    if (got <= most) return;
    throw new PtpError('out_of_range', `\`${field}\` must be at most ${most}, got ${got}`, { field });
  };
  check('top_log_probabilities', MOST_TOPS, topCount);
  check('stop_tokens', MOST_STOP_TOKENS, stopTokens.length);
  requireTokens('stop_tokens', stopTokens, vocabulary);
  const adjustments = receivedAdjustments(message.adjustments, vocabulary);
  return { stopTokens, topCount, ignoreEndOfText, ...(adjustments && { adjustments }) };
}

function topMessage({ ids, logProbabilities }: TopTokens) {
  return { ids: [...ids], logProbabilities: [...logProbabilities] };
}

function draftOptions(draft: DraftOptions | undefined): Pick<GenerationRequest, 'drafting' | 'draftLimits'> {
  if (!draft) return {};
  const { off, length, promptLookup: lookup } = draft;
  const mode = DRAFT_MODES.find((known) => known === draft.mode);
  if (draft.mode !== '' && !mode) {
    const message = `\`draft.mode\` must be ${DRAFT_MODES.join(', ')}, got ${JSON.stringify(draft.mode.slice(0, 40))}`;
    throw new PtpError('invalid_argument', message, { field: 'draft.mode' });
  }
  if (length > LONGEST_DRAFT) {
    const message = `\`draft.length\` must be in [0, ${LONGEST_DRAFT}], got ${length}`;
    throw new PtpError('out_of_range', message, { field: 'draft.length' });
  }
  const draftLimits = { ...(length > 0 && { length }), ...(mode && { mode }), ...(lookup !== undefined && { lookup }) };
  return { drafting: !off, draftLimits };
}

function promptOf({ prompt }: GenerateRequest, modelInfo: ModelInfo, tokenizer: Tokenizer): readonly number[] {
  switch (prompt.case) {
    case 'text':
      return orBeginning(encodeText(prompt.value, tokenizer, modelInfo, 'prompt'), modelInfo);
    case 'tokens':
      requireTokens('prompt.tokens', prompt.value.ids, modelInfo.vocabulary);
      return orBeginning(prompt.value.ids, modelInfo);
    default:
      throw new PtpError('invalid_argument', '`prompt` is missing: set text or tokens', { field: 'prompt' });
  }
}

function stepMessage(stats: StepStats) {
  return {
    step: stats.step,
    drafted: stats.drafted,
    accepted: stats.accepted,
    stepUs: stats.stepMicros,
    verifyUs: stats.verifyMicros,
    draftUs: stats.draftMicros,
    verifyRunUs: stats.verifyRunMicros,
    draftRunUs: stats.draftRunMicros,
    redraftUs: stats.redraftMicros,
    mode: stats.mode,
    reason: stats.reason,
    offered: stats.offered,
    source: stats.source,
    budget: stats.budget,
    aheadUs: stats.aheadMicros,
  };
}
