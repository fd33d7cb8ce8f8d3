import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeLlamaOnnx } from '../llama-onnx.ts';
import { type LlamaTarget, readLlama } from '../llama-target.ts';
import { importPeer } from './install.ts';
import type { Engine, Wish } from './peer.ts';

/** What is used of @huggingface/transformers, which has types only once it is installed. */
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

/** Below the folder that is given. */
const NAME = 'llama-onnx';

/**
 * transformers.js on one thread of the processor. It has no top-p (4.3.2: `_get_logits_processor` leaves it out), so that sampled
 * texts come from another distribution.
 *
 * @param models the pair's folder
 * @param folder where the target is written in a form of its own
 */
export async function transformersJs(models: string, folder: string, endOfText: number): Promise<Engine> {
  const { env, random, Tensor, AutoModelForCausalLM } = await importPeer<Library>(
    '@huggingface/transformers/dist/transformers.node.mjs',
  );
  await writeModel(await readLlama(models), join(folder, NAME));
  env.allowRemoteModels = false;
  env.localModelPath = folder;
  const model = await AutoModelForCausalLM.from_pretrained(NAME, {
    device: 'cpu',
    dtype: 'fp32',
    session_options: { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential' },
  });

  async function* generate(prompt: readonly number[], { sampling, seed, maxTokens }: Wish) {
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
        await model.generate({ ...request, streamer: { put, end() {} } });
        controller.close();
      },
    });
  }
  return { peers: [{ name: 'transformers.js, without top-p', generate }], stop: () => model.dispose() };
}

/** A model as transformers.js looks for it. */
async function writeModel(target: LlamaTarget, folder: string): Promise<void> {
  const { sizes, endOfText } = target;
  const config = {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    vocab_size: sizes.vocab,
    hidden_size: sizes.width,
    intermediate_size: sizes.hidden,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kv_heads,
    head_dim: sizes.head_width,
    max_position_embeddings: sizes.context,
    rope_theta: sizes.rope_theta,
    rms_norm_eps: sizes.epsilon,
    tie_word_embeddings: sizes.tied,
    eos_token_id: endOfText,
    'transformers.js_config': { use_external_data_format: true },
  };
  await mkdir(join(folder, 'onnx'), { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeFile(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: endOfText }));
  await writeLlamaOnnx(target, join(folder, 'onnx', 'model.onnx'));
}
