/**
 * Types of the parts of node-llama-cpp 3.22.1 that are used here. The package's own types may be missing, because it is
 * an optional peer dependency: its GPU binaries take several hundred megabytes.
 * https://node-llama-cpp.withcat.ai/api
 */
declare module 'node-llama-cpp' {
  export type Token = number & { readonly __token: never };

  export interface Disposable {
    dispose(): Promise<void>;
  }
  export interface Llama extends Disposable {
    /** Number of physical cores. */
    readonly cpuMathCores: number;
    /** Interface to the GPU, such as `cuda`, or false if llama.cpp runs on the CPU. */
    readonly gpu: string | false;
    readonly buildType: 'localBuild' | 'prebuilt';
    readonly llamaCppRelease: { readonly repo: string; readonly release: string };
    /** Instruction sets that llama.cpp uses on this CPU. */
    readonly systemInfo: string;
    getVramState(): Promise<{ readonly free: number }>;
    getGpuDeviceNames(): Promise<string[]>;
    loadModel(options: { modelPath: string; gpuLayers: number | 'auto' }): Promise<LlamaModel>;
    loadModel(options: {
      modelPath: string;
      vocabOnly: true;
      ignoreMemorySafetyChecks: true;
      metadataOverrides?: { tokenizer: { ggml: { add_space_prefix: boolean } } };
    }): Promise<LlamaVocabulary>;
  }
  export interface LlamaModel extends Disposable {
    readonly fileInsights: { readonly isRecurrent: boolean; readonly isHybrid: boolean };
    createContext(options: {
      batchSize?: number;
      flashAttention?: boolean;
      contextSize: number;
      sequences: number;
      swaFullCache: boolean;
      threads?: number;
    }): Promise<LlamaContext>;
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
      merges?: readonly string[];
      readonly bos_token_id?: number;
    };
    readonly chat_template?: string;
  }
  export interface LlamaContext extends Disposable {
    readonly totalSequences: number;
    readonly onDispose: { createListener(listener: () => void): unknown };
    getSequence(): LlamaContextSequence;
  }
  export interface LlamaContextSequence {
    readonly contextTokens: Token[];
    readonly nextTokenIndex: number;
    eraseContextTokenRanges(ranges: { start: number; end: number }[]): Promise<void>;
    clearHistory(): Promise<void>;
    evaluate(tokens: Token[], options: { temperature: number; yieldEogToken: boolean }): AsyncIterable<Token>;
    controlledEvaluate(input: ControlledEvaluateInputItem[]): Promise<(ControlledEvaluateIndexOutput | undefined)[]>;
  }
  export interface LogitFilter {
    readonly tokens: readonly Token[];
    readonly includeTop: number;
  }
  export type ControlledEvaluateInputItem =
    | Token
    | [
        token: Token,
        options: {
          generateNext: {
            logits: boolean | { filter: LogitFilter };
            totalLogitWeight?: boolean;
            options: { temperature: number; topK?: number; topP?: number; minP?: number };
          };
        },
      ];
  export interface ControlledEvaluateIndexOutput {
    readonly next: { readonly logits?: Map<Token, number>; readonly totalLogitWeight?: number };
  }
  export interface LlamaOptions {
    readonly build: 'never';
    readonly skipDownload: true;
    readonly logLevel: 'error' | 'fatal';
    readonly gpu?: false;
    readonly logger?: (level: unknown, message: string) => void;
    readonly maxThreads?: number;
  }
  /** Returns the version of node-llama-cpp, whose binaries have the same version. */
  export function getModuleVersion(): Promise<string>;
  export function getLlama(options: LlamaOptions): Promise<Llama>;
}
