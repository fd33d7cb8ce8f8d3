/** Types of the part of node-llama-cpp 3.22.1 that reads a vocabulary. See engine/src/llama-cpp/node-llama-cpp.d.ts. */
declare module 'node-llama-cpp' {
  export interface Llama {
    loadModel(options: {
      modelPath: string;
      vocabOnly: true;
      ignoreMemorySafetyChecks: true;
      metadataOverrides?: { tokenizer: { ggml: { add_space_prefix: boolean } } };
    }): Promise<LlamaVocabulary>;
  }
  /** A model loaded with `vocabOnly`. */
  export interface LlamaVocabulary extends Disposable {
    readonly fileInfo: { readonly metadata: { readonly tokenizer: TokenizerMetadata } };
    tokenize(text: string, specialTokens: boolean): Token[];
  }
  export interface TokenizerMetadata {
    readonly ggml: {
      readonly model: string;
      readonly pre?: string;
      readonly tokens: readonly string[];
      readonly token_type?: readonly number[];
      readonly bos_token_id?: number;
    };
    readonly chat_template?: string;
  }
}
