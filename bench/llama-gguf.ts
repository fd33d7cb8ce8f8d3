import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Value, writeGguf } from './gguf.ts';
import { type LlamaTarget, readLlama, type Sizes } from './llama-target.ts';
import type { Tensor } from './onnx-weights.ts';

/** The parts of tokenizer.json (https://github.com/huggingface/tokenizers) that a byte-level BPE has in GGUF. */
const tokenizerSchema = z.object({
  added_tokens: z.array(z.object({ id: z.int(), content: z.string() })),
  model: z.object({
    type: z.literal('BPE'),
    vocab: z.record(z.string(), z.int()),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
});

/** llama.cpp's llama_token_type. */
const NORMAL = 1;
const CONTROL = 3;

/**
 * Writes the target of a model folder as GGUF of llama.cpp's `llama` architecture.
 *
 * @param layers how many of the target's layers, from the first one; all unless given
 * @throws ZodError naming what in manifest.json or tokenizer.json this form cannot hold
 */
export async function writeLlama(models: string, path: string, layers?: number): Promise<Sizes> {
  const whole = await readLlama(models);
  const sizes = { ...whole.sizes, layers: layers ?? whole.sizes.layers };
  const target = { ...whole, sizes };
  const tokenizer = tokenizerSchema.parse(JSON.parse(await readFile(join(models, 'tokenizer.json'), 'utf8')));
  const metadata = { ...architecture(sizes, target.id), ...vocabulary(tokenizer, sizes.vocab, target.endOfText) };
  await writeGguf(path, metadata, llamaTensors(target));
  return sizes;
}

function architecture(sizes: Sizes, name: string): Record<string, Value> {
  return {
    'general.architecture': 'llama',
    'general.name': name,
    'general.file_type': { uint32: 0 },
    'llama.context_length': { uint32: sizes.context },
    'llama.embedding_length': { uint32: sizes.width },
    'llama.block_count': { uint32: sizes.layers },
    'llama.feed_forward_length': { uint32: sizes.hidden },
    'llama.attention.head_count': { uint32: sizes.heads },
    'llama.attention.head_count_kv': { uint32: sizes.kv_heads },
    'llama.attention.key_length': { uint32: sizes.head_width },
    'llama.attention.value_length': { uint32: sizes.head_width },
    'llama.attention.layer_norm_rms_epsilon': { float32: sizes.epsilon },
    'llama.rope.dimension_count': { uint32: sizes.head_width },
    'llama.rope.freq_base': { float32: sizes.rope_theta },
    'llama.vocab_size': { uint32: sizes.vocab },
  };
}

function vocabulary(tokenizer: z.infer<typeof tokenizerSchema>, size: number, endOfText: number) {
  const tokens = Array.from({ length: size }, (_, id) => `[unused${id}]`);
  for (const [token, id] of Object.entries(tokenizer.model.vocab)) tokens[id] = token;
  const added = new Map(tokenizer.added_tokens.map(({ id, content }) => [id, content]));
  for (const [id, content] of added) tokens[id] = content;
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((_, id) => ({ int32: added.has(id) ? CONTROL : NORMAL })),
    'tokenizer.ggml.merges': tokenizer.model.merges.map((pair) => (typeof pair === 'string' ? pair : pair.join(' '))),
    'tokenizer.ggml.bos_token_id': { uint32: endOfText },
    'tokenizer.ggml.eos_token_id': { uint32: endOfText },
    'tokenizer.ggml.add_bos_token': false,
  } satisfies Record<string, Value>;
}

/** The parameters under llama.cpp's names. */
function llamaTensors({ sizes, parameter: get }: LlamaTarget): Map<string, Tensor> {
  const queries = sizes.heads * sizes.head_width;
  const keys = sizes.kv_heads * sizes.head_width;
  const tensors = new Map([['token_embd.weight', get('embedding')]]);
  for (let n = 0; n < sizes.layers; n++) {
    const qkv = transpose(get(`layer${n}.qkv.weight`));
    const gateUp = transpose(get(`layer${n}.gate_up.weight`));
    const layer = {
      attn_norm: get(`layer${n}.norm_attention.weight`),
      attn_q: interleaveHalves(rows(qkv, 0, queries), sizes.head_width),
      attn_k: interleaveHalves(rows(qkv, queries, queries + keys), sizes.head_width),
      attn_v: rows(qkv, queries + keys, queries + 2 * keys),
      attn_output: transpose(get(`layer${n}.o.weight`)),
      ffn_norm: get(`layer${n}.norm_mlp.weight`),
      ffn_gate: rows(gateUp, 0, sizes.hidden),
      ffn_up: rows(gateUp, sizes.hidden, 2 * sizes.hidden),
      ffn_down: transpose(get(`layer${n}.down.weight`)),
    };
    for (const [name, tensor] of Object.entries(layer)) tensors.set(`blk.${n}.${name}.weight`, tensor);
  }
  tensors.set('output_norm.weight', get('norm.weight'));
  if (!sizes.tied) tensors.set('output.weight', get('output'));
  return tensors;
}

/** [in, out], as ONNX MatMul has it -> [out, in]. */
function transpose({ shape: [height = 0, width = 0], data }: Tensor): Tensor {
  const turned = new Float32Array(data.length);
  for (let i = 0; i < height; i++)
    for (let j = 0; j < width; j++) turned[j * height + i] = data[i * width + j] as number;
  return { shape: [width, height], data: turned };
}

function rows({ shape: [, width = 0], data }: Tensor, start: number, end: number): Tensor {
  return { shape: [end - start, width], data: data.subarray(start * width, end * width) };
}

/**
 * The rows of each head reordered from pairs (i, i + D/2), which we rotate, to pairs (2i, 2i + 1), which llama.cpp rotates in
 * this architecture: LlamaModel.permute in its convert_hf_to_gguf.py.
 */
function interleaveHalves({ shape, data }: Tensor, headWidth: number): Tensor {
  const [height = 0, width = 0] = shape;
  const half = headWidth / 2;
  const out = new Float32Array(data.length);
  for (let row = 0; row < height; row++) {
    const within = row % headWidth;
    const to = row - within + 2 * (within % half) + Math.floor(within / half);
    out.set(data.subarray(row * width, (row + 1) * width), to * width);
  }
  return { shape, data: out };
}
