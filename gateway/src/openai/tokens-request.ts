import { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import { boolean, check, object, refuse, text } from '../validation.ts';
import { type ChatMessage, conversation, messageList } from './messages.ts';
import { checkModel, tokenIds } from './request.ts';

/** The body of POST /tokenize, as vLLM has it: a text or a conversation. */
export interface TokenizeRequest {
  readonly prompt: string | readonly ChatMessage[];
  /** Whether the token that begins every text is put before a text; a chat template decides by itself. */
  readonly addSpecialTokens: boolean;
  readonly returnTokenStrs: boolean;
}

/** POST /tokenize. */
export const tokenizeBody = object({
  model: z.string({ error: 'a string' }).nullish(),
  prompt: text.nullish(),
  messages: messageList.nullish(),
  add_special_tokens: boolean.nullish(),
  return_token_strs: boolean.nullish(),
});

/** @throws PtpError as `completionRequest` */
export function tokenizeRequest(body: unknown, model: ModelInfo): TokenizeRequest {
  const given = check(tokenizeBody, body);
  checkModel(given.model ?? 'default', model);
  const prompt = given.messages ? conversation(given.messages) : given.prompt;
  if (prompt === undefined || prompt === null) return refuse('prompt', 'a string, or `messages` given', prompt);
  return {
    prompt,
    addSpecialTokens: given.add_special_tokens ?? true,
    returnTokenStrs: given.return_token_strs ?? false,
  };
}

/** POST /detokenize. */
export const detokenizeBody = object({
  model: z.string({ error: 'a string' }).nullish(),
  tokens: z.unknown().meta({ description: 'token ids' }),
});

/** The token ids in the body of POST /detokenize. @throws PtpError as `completionRequest` */
export function detokenizeRequest(body: unknown, model: ModelInfo): readonly number[] {
  const given = check(detokenizeBody, body);
  checkModel(given.model ?? 'default', model);
  if (!Array.isArray(given.tokens)) return refuse('tokens', 'an array of token ids', given.tokens);
  return tokenIds('tokens', given.tokens, model.vocabulary);
}
