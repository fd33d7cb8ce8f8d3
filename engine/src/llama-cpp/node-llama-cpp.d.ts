/**
 * Types of the part of node-llama-cpp 3.22.1 that the engine uses. The package's own types may be missing, because it
 * is an optional peer dependency: its GPU binaries take several hundred megabytes.
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
    getVramState(): Promise<{ readonly free: number }>;
    loadModel(options: { modelPath: string; gpuLayers: number | 'auto' }): Promise<LlamaModel>;
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
  export const LlamaLogLevel: { readonly error: 'error'; readonly fatal: 'fatal' };
  export function getLlama(options: {
    build: 'never';
    skipDownload: boolean;
    logLevel: 'error' | 'fatal';
    gpu?: false;
    logger?: (level: unknown, message: string) => void;
    maxThreads?: number;
    gpu?: false;
  }): Promise<Llama>;
}
