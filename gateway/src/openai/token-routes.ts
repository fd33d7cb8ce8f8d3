import type { FastifyInstance } from 'fastify';
import manifest from '../../package.json' with { type: 'json' };
import { beginning, type Generator } from '../decode/types.ts';
import { route } from '../http/route.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { checkLength } from './prompt.ts';
import { detokenizeRequest, type TokenizeRequest, tokenizeRequest } from './tokens-request.ts';

export interface TokenParts {
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
}

/** /tokenize, /detokenize and /version, as vLLM has them. */
export function tokenRoutes(app: FastifyInstance, { generator, tokenizer, chatTemplate }: TokenParts): void {
  const { model } = generator;

  const encode = ({ prompt, addSpecialTokens }: TokenizeRequest): readonly number[] => {
    if (typeof prompt !== 'string') return chatTemplate.encode(prompt, tokenizer, model);
    checkLength(prompt, tokenizer, model, 'prompt');
    return [...(addSpecialTokens ? beginning(model) : []), ...tokenizer.encode(prompt)];
  };

  route(app, 'POST', '/tokenize', async ({ body }) => {
    const asked = tokenizeRequest(body, model);
    const tokens = encode(asked);
    const names = asked.returnTokenStrs ? tokens.map((id) => tokenizer.name(id)) : null;
    return { count: tokens.length, max_model_len: model.contextLength, tokens, token_strs: names };
  });
  route(app, 'POST', '/detokenize', async ({ body }) => {
    return { prompt: tokenizer.decode(detokenizeRequest(body, model)) };
  });
  route(app, 'GET', '/version', async () => ({ version: manifest.version }));
}
