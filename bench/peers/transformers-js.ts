import { basename, dirname } from 'node:path';
import { type Engine, importPeer, type PeerRequest } from './peer.ts';

/** Types of the parts of @huggingface/transformers that are used here. The package's own types are not installed. */
interface Library {
  readonly env: { allowRemoteModels: boolean; localModelPath: string };
  readonly random: { seed(seed: number): void };
  readonly Tensor: new (type: 'int64', data: BigInt64Array, shape: readonly number[]) => object;
  readonly AutoModelForCausalLM: { from_pretrained(name: string, options: object): Promise<Model> };
}
interface Model {
  generate(request: object): Promise<unknown>;
  dispose(): Promise<unknown>;
}

/**
 * Opens transformers.js on one CPU thread. The library ignores top-p (4.3.2: `_get_logits_processor` omits it), so its
 * sampled texts come from a different distribution.
 *
 * @param model folder written by `ptp-train export --to transformers-js`
 */
export async function transformersJs(model: string, endOfText: number): Promise<Engine> {
  const { env, random, Tensor, AutoModelForCausalLM } = await importPeer<Library>(
    '@huggingface/transformers/dist/transformers.node.mjs',
  );
  env.allowRemoteModels = false;
  env.localModelPath = dirname(model);
  const loaded = await AutoModelForCausalLM.from_pretrained(basename(model), {
    device: 'cpu',
    dtype: 'fp32',
    session_options: { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential' },
  });

  async function* generate(prompt: readonly number[], { sampling, seed, maxTokens }: PeerRequest) {
    random.seed(seed);
    const request = {
      inputs: new Tensor('int64', BigInt64Array.from(prompt, BigInt), [1, prompt.length]),
      max_new_tokens: maxTokens,
      do_sample: sampling.temperature > 0,
      temperature: sampling.temperature,
      top_k: sampling.topK,
      top_p: sampling.topP,
    };
    yield* new ReadableStream<number[]>({
      async start(controller) {
        let isPrompt = true;
        const put = ([ids = []]: bigint[][]) => {
          const tokens = ids.map(Number).filter((token) => token !== endOfText);
          if (!isPrompt && tokens.length > 0) controller.enqueue(tokens);
          isPrompt = false;
        };
        await loaded.generate({ ...request, streamer: { put, end() {} } });
        controller.close();
      },
    });
  }
  return { peers: [{ name: 'transformers.js, without top-p', generate }], stop: () => loaded.dispose() };
}
