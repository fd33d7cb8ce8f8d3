import { huggingFaceChat } from '@ptp/protocol/hf-manifest';
import { checkFiles, isGguf, isHuggingFaceFolder, type Manifest } from '@ptp/protocol/manifest';
import { CHAT_TEMPLATE, ChatTemplate, loadChatTemplate } from './chat-template.ts';
import { loadGgufText } from './gguf-tokenizer.ts';
import { loadTokenizer } from './json-tokenizer.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Default format of conversations, for models without a chat template. The same as in llama.cpp's server. */
const CHATML = `{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' -}}`;

/** Parts of a model that convert text and conversations to token ids and back. */
export interface TextModel {
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
}

/**
 * Loads tokenizer and chat template of a model.
 *
 * @param path path of a model folder, a Hugging Face folder or a GGUF file
 * @throws PtpError `failed_precondition` if a file is missing or damaged, or its vocabulary is not supported
 */
export async function loadTextModel(path: string, manifest: Manifest): Promise<TextModel> {
  if (isGguf(path)) {
    const {
      tokenizer,
      chatTemplate = CHATML,
      beginName,
    } = await loadGgufText(path, [manifest.end_of_text, ...manifest.stop_tokens]);
    return { tokenizer, chatTemplate: new ChatTemplate(chatTemplate, { beginName }) };
  }
  if (isHuggingFaceFolder(path)) {
    const [tokenizer, chat] = await Promise.all([loadTokenizer(path), huggingFaceChat(path)]);
    const { template, beginName } = chat;
    return {
      tokenizer,
      chatTemplate: new ChatTemplate(template ?? CHATML, { beginName, isWhole: template !== undefined }),
    };
  }
  // The manifests of older folders do not list the chat template.
  const listed = CHAT_TEMPLATE in manifest.files ? [CHAT_TEMPLATE] : [];
  await checkFiles(path, manifest, ['tokenizer.json', ...listed]);
  // Only imported models have this field. Their templates were written for transformers.
  const isWhole = manifest.begin_of_text !== undefined;
  const [tokenizer, chatTemplate] = await Promise.all([loadTokenizer(path), loadChatTemplate(path, { isWhole })]);
  return { tokenizer, chatTemplate };
}
