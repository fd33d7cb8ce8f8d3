import type { LlamaTarget, Sizes } from './llama-target.ts';
import { type Graph, type Node, type Value, writeOnnx } from './onnx-file.ts';
import type { Tensor } from './onnx-weights.ts';

/** Domain of onnxruntime's own operators (docs/ContribOperators.md in its repository). */
const CONTRIB = 'com.microsoft';
/** TensorProto.DataType. */
const INT32 = 6;
/** Beyond the end of any dimension, for Slice. */
const END = Number.MAX_SAFE_INTEGER;

/**
 * Writes the target as an ONNX graph with the inputs and outputs of the published ones of Llama's kind: B sequences of T tokens
 * behind P earlier ones, G key/value heads of width D.
 *
 * Inputs: input_ids [B, T]; attention_mask [B, P + T], ones; num_logits_to_keep, of the last tokens, 0 for all;
 * past_key_values.N.key and .value [B, G, P, D]. Outputs: logits [B, kept, V]; present.N.key and .value [B, G, P + T, D].
 *
 * The operators are those of the published graphs too, but queries, keys and values are one product, and gate and up another,
 * as in ours: that was no slower.
 */
export function writeLlamaOnnx(target: LlamaTarget, path: string): Promise<void> {
  const { sizes } = target;
  const { nodes, parameters, constants } = new Llama(target);
  const inputs: Value[] = [
    { name: 'input_ids', type: 'int64', shape: ['batch_size', 'sequence_length'] },
    { name: 'attention_mask', type: 'int64', shape: ['batch_size', 'total_sequence_length'] },
    { name: 'num_logits_to_keep', type: 'int64', shape: [] },
    ...cache('past_key_values', 'past_sequence_length', sizes),
  ];
  const outputs: Value[] = [
    { name: 'logits', type: 'float', shape: ['batch_size', 'num_logits', sizes.vocab] },
    ...cache('present', 'total_sequence_length', sizes),
  ];
  return writeOnnx(path, { nodes, parameters, constants, inputs, outputs });
}

function cache(prefix: string, length: string, { layers, kv_heads, head_width }: Sizes): Value[] {
  const shape = ['batch_size', kv_heads, length, head_width];
  return [...Array(layers).keys()].flatMap((n) =>
    ['key', 'value'].map((kind): Value => ({ name: `${prefix}.${n}.${kind}`, type: 'float', shape })),
  );
}

/** The nodes; values are named as in training/src/ptp_train/export/graphs/graph.py where they are the same. */
class Llama implements Pick<Graph, 'nodes' | 'parameters' | 'constants'> {
  readonly nodes: Node[] = [];
  readonly parameters = new Map<string, Tensor>();
  readonly constants: Record<string, number | readonly number[]> = {};
  private readonly target: LlamaTarget;
  /** The residual stream, without what the last block contributed. */
  private x: string;
  private contribution = '';

  constructor(target: LlamaTarget) {
    this.target = target;
    const { layers, tied } = target.sizes;
    this.lengths();
    this.x = this.node('Gather', [this.weight('embedding'), 'input_ids'], 'embedded');
    for (let n = 0; n < layers; n++) {
      this.attention(n);
      this.mlp(`layer${n}`);
    }
    this.logits(tied ? 'embedding' : 'output');
  }

  /** What GroupQueryAttention wants instead of a mask: P + T - 1 of each sequence, and P + T. */
  private lengths(): void {
    const sum = this.node('ReduceSum', ['attention_mask', this.constant([1])], 'lengths', { keepdims: 0 });
    const last = this.node('Sub', [sum, this.constant([1])], 'lengths.last');
    this.node('Cast', [last], 'seqlens_k', { to: INT32 });
    const total = this.node(
      'Gather',
      [this.node('Shape', ['attention_mask'], 'mask.shape'), this.constant(1)],
      'total',
    );
    this.node('Cast', [total], 'total_sequence_length', { to: INT32 });
  }

  private attention(n: number): void {
    const { heads, kv_heads } = this.target.sizes;
    const name = `layer${n}`;
    const qkv = this.linear(this.norm(`${name}.norm_attention`), `${name}.qkv`);
    const past = [`past_key_values.${n}.key`, `past_key_values.${n}.value`];
    const rope = [this.weight('rope.cos'), this.weight('rope.sin')];
    const attended = this.contrib(
      'GroupQueryAttention',
      [qkv, '', '', ...past, 'seqlens_k', 'total_sequence_length', ...rope],
      [`${name}.attended`, `present.${n}.key`, `present.${n}.value`],
      { num_heads: heads, kv_num_heads: kv_heads, do_rotary: 1 },
    );
    this.contribution = this.linear(attended, `${name}.o`);
  }

  private mlp(name: string): void {
    const { hidden } = this.target.sizes;
    const gateUp = this.linear(this.norm(`${name}.norm_mlp`), `${name}.gate_up`);
    const halves = [`${name}.gate`, `${name}.up`];
    this.node('Split', [gateUp, this.constant([hidden, hidden])], halves, { axis: -1 });
    const silu = this.contrib('QuickGelu', [`${name}.gate`], [`${name}.silu`], { alpha: { float: 1 } });
    this.contribution = this.linear(this.node('Mul', [silu, `${name}.up`], `${name}.gated`), `${name}.down`);
  }

  private logits(head: string): void {
    const { width, vocab } = this.target.sizes;
    const kept = this.node('Unsqueeze', ['num_logits_to_keep', this.constant([0])], 'kept');
    const start = this.node('Neg', [kept], 'kept.start');
    const rows = this.node('Slice', [this.norm('norm'), start, this.constant([END]), this.constant([1])], 'kept.rows');
    // Gemm, so that an embedding can be its own head
    const flat = this.node('Reshape', [rows, this.constant([-1, width])], 'kept.flat');
    const logits = this.node('Gemm', [flat, this.weight(head)], 'logits.flat', { transB: 1 });
    const shape = this.node(
      'Concat',
      [this.node('Shape', [rows], 'kept.shape', { end: 2 }), this.constant([vocab])],
      'logits.shape',
      { axis: 0 },
    );
    this.node('Reshape', [logits, shape], 'logits');
  }

  /** RMSNorm of the residual stream, to which the last block's contribution is added on the way. */
  private norm(name: string): string {
    const epsilon = { float: this.target.sizes.epsilon };
    const gain = this.weight(`${name}.weight`);
    if (!this.contribution) {
      return this.node('SimplifiedLayerNormalization', [this.x, gain], name, { axis: -1, epsilon, stash_type: 1 });
    }
    const sum = `${name}.sum`;
    this.contrib('SkipSimplifiedLayerNormalization', [this.x, this.contribution, gain], [name, '', '', sum], {
      epsilon,
    });
    this.x = sum;
    return name;
  }

  private linear(x: string, name: string): string {
    return this.node('MatMul', [x, this.weight(`${name}.weight`)], name);
  }

  /** Returns the first output's name. */
  private node(
    op: string,
    inputs: readonly string[],
    outputs: string | readonly string[],
    attributes: Node['attributes'] = {},
    domain = '',
  ): string {
    const names = [outputs].flat();
    this.nodes.push({ op, inputs, outputs: names, attributes, domain });
    return names[0] as string;
  }

  private contrib(op: string, inputs: readonly string[], outputs: readonly string[], attributes: Node['attributes']) {
    return this.node(op, inputs, outputs, attributes, CONTRIB);
  }

  private weight(name: string): string {
    this.parameters.set(name, this.target.parameter(name));
    return name;
  }

  private constant(value: number | readonly number[]): string {
    const name = `constant.${JSON.stringify(value)}`;
    this.constants[name] = value;
    return name;
  }
}
