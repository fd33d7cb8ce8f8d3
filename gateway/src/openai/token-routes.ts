import { invalidField, parseFields } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { checkLength, encodeText } from '../text/encode.ts';
import { boolean, object, text } from '../validation.ts';
import { conversation, messageList, promptEnd, promptEndOf, templateVariables } from './messages.ts';
import { checkModel, tokenIds } from './request.ts';
import type { EndpointParts } from './respond.ts';

const modelField = z.string({ error: 'a string' }).nullish();

/** Body of POST /tokenize, which takes a text or a conversation. */
export const tokenizeBody = object({
  model: modelField,
  prompt: text.nullish(),
  messages: messageList.nullish(),
  chat_template_kwargs: templateVariables,
  ...promptEnd,
  /** True (default) to begin the tokens of `prompt` with the beginning-of-text token. */
  add_special_tokens: boolean.nullish(),
  /** True to encode names such as `<|im_start|>` in `prompt` as special tokens. Default: false. */
  special_tokens: boolean.nullish(),
  return_token_strs: boolean.nullish(),
});

/** Body of POST /detokenize. */
export const detokenizeBody = object({
  model: modelField,
  tokens: z.unknown().meta({ description: 'an array of token ids' }),
});

/** Serves /tokenize, /detokenize and /version, compatible with vLLM. */
export function tokenRoutes(
  app: FastifyInstance,
  { generator, tokenizer, chatTemplate }: Pick<EndpointParts, 'generator' | 'tokenizer' | 'chatTemplate'>,
): void {
  const { model } = generator;

  const encode = (body: z.infer<typeof tokenizeBody>) => {
    const { prompt, chat_template_kwargs: variables } = body;
    if (body.messages) {
      const messages = conversation(body.messages);
      const end = promptEndOf(body, messages);
      return chatTemplate.encode(messages, tokenizer, model, { variables: variables ?? undefined, ...end });
    }
    if (prompt == null) throw invalidField('prompt', 'a string, unless `messages` is given', prompt);
    const special = body.special_tokens ?? false;
    if (body.add_special_tokens ?? true) return encodeText(prompt, tokenizer, model, 'prompt', special);
    checkLength(prompt, tokenizer, model, 'prompt');
    return special ? tokenizer.encodeRendered(prompt) : tokenizer.encode(prompt);
  };

  app.post('/tokenize', async (http) => {
    const body = parseFields(tokenizeBody, http.body);
    checkModel(body.model ?? 'default', model);
    const tokens = encode(body);
    const names = body.return_token_strs ? tokens.map((id) => tokenizer.name(id)) : null;
    return { count: tokens.length, max_model_len: model.contextLength, tokens, token_strs: names };
  });
  app.post('/detokenize', async (http) => {
    const { model: name, tokens } = parseFields(detokenizeBody, http.body);
    checkModel(name ?? 'default', model);
    // Token ids are validated without a schema, because zod would be slow on an array of many token ids.
    if (!Array.isArray(tokens)) throw invalidField('tokens', 'an array of token ids', tokens);
    return { prompt: tokenizer.decodeWhole(tokenIds('tokens', tokens, model.vocabulary)) };
  });
  app.get('/version', async () => ({ version: manifest.version }));
}
