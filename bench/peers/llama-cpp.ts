import { type Engine, importPeer, type Peer, type PeerRequest } from './peer.ts';

/** Types of the parts of node-llama-cpp that are used here. The package's own types are not installed. */
interface Library {
  getLlama(options: object): Promise<Llama>;
  InputLookupTokenPredictor: new () => Predictor;
  DraftSequenceTokenPredictor: new (sequence: Sequence) => Predictor;
}
interface Llama {
  loadModel(options: { modelPath: string }): Promise<Model>;
  dispose(): Promise<void>;
}
interface Model {
  createContext(options: object): Promise<{ getSequence(options?: { tokenPredictor: Predictor }): Sequence }>;
}
interface Sequence {
  readonly nextTokenIndex: number;
  evaluate(tokens: number[], options: object): AsyncIterable<number>;
  controlledEvaluate(
    input: [number, { generateNext?: object }][],
  ): Promise<(undefined | { next: { token?: number | null } })[]>;
  eraseContextTokenRanges(ranges: { start: number; end: number }[]): Promise<void>;
  clearHistory(): Promise<void>;
}
interface Predictor {
  updateInputTokens(tokens: number[]): void;
  reset(state: { stateTokens: number[] }): void;
  pushTokens(tokens: number[]): void;
  predictTokens(): number[];
}

/**
 * Opens llama.cpp through node-llama-cpp on one CPU thread, with a float32 KV cache like ours.
 *
 * @param target path of a GGUF file
 * @param draft path of a draft model's GGUF file, and the model's name in the results
 */
export async function llamaPeers(
  target: string,
  draft: { readonly path: string; readonly name: string } | undefined,
  endOfText: number,
  contextSize: number,
): Promise<Engine> {
  const library = await importPeer<Library>('node-llama-cpp/dist/index.js');
  const llama = await library.getLlama({
    build: 'never',
    skipDownload: true,
    gpu: false,
    maxThreads: 1,
    logLevel: 'error',
    progressLogs: false,
  });
  const sequence = async (model: Model, tokenPredictor?: Predictor) => {
    const context = await model.createContext({
      contextSize,
      threads: 1,
      flashAttention: false, // Flash attention is slower on a CPU, and its results differ from the results in float32.
      experimentalKvCacheKeyType: 'F32',
      experimentalKvCacheValueType: 'F32',
    });
    return context.getSequence(tokenPredictor && { tokenPredictor });
  };
  const model = await llama.loadModel({ modelPath: target });
  const lookup = new library.InputLookupTokenPredictor();
  const peers = [
    evaluated('llama.cpp', await sequence(model)),
    evaluated('llama.cpp, its prompt lookup', await sequence(model, lookup), lookup),
    wholeBlocks(
      'llama.cpp, the same lookup with whole blocks verified',
      await sequence(model),
      new library.InputLookupTokenPredictor(),
      endOfText,
    ),
  ];
  if (draft) {
    const draftModel = await llama.loadModel({ modelPath: draft.path });
    const drafter = new library.DraftSequenceTokenPredictor(await sequence(draftModel));
    peers.push(evaluated(`llama.cpp with draft model ${draft.name}`, await sequence(model, drafter)));
  }
  return { peers, stop: () => llama.dispose() };
}

/**
 * Decodes with the library's own loop, which accepts at most one token of a proposal (3.22.1: `_speculativeEvaluate`
 * rejects the second).
 */
function evaluated(name: string, sequence: Sequence, lookup?: Predictor): Peer {
  async function* generate(prompt: readonly number[], { maxTokens, ...request }: PeerRequest) {
    await sequence.clearHistory();
    lookup?.updateInputTokens([...prompt]);
    let count = 0;
    for await (const token of sequence.evaluate([...prompt], sampling(request))) {
      yield [token];
      if (++count === maxTokens) return;
    }
  }
  return { name, generate };
}

/**
 * Decodes with a loop that accepts all correct tokens of a proposal, as llama.cpp's own programs do. At each position
 * it compares the proposed token with the token that the target picks.
 */
function wholeBlocks(name: string, sequence: Sequence, lookup: Predictor, endOfText: number): Peer {
  async function* generate(prompt: readonly number[], { maxTokens, ...request }: PeerRequest) {
    await sequence.clearHistory();
    lookup.updateInputTokens([...prompt]);
    lookup.reset({ stateTokens: [...prompt] });
    let input = [...prompt];
    for (let count = 0; count < maxTokens; ) {
      const proposed = count === 0 ? [] : lookup.predictTokens().slice(0, maxTokens - count - 1);
      const start = input.length - 1;
      // Every call restarts the random number generator, so each call needs a different seed.
      const options = sampling({ ...request, seed: request.seed * 4096 + count });
      const picks = { generateNext: { token: true, options } };
      const results = await sequence.controlledEvaluate(
        [...input, ...proposed].map((token, i) => [token, i < start ? {} : picks]),
      );
      const picked = results.slice(start).map((result) => result?.next.token ?? endOfText);
      const wrong = proposed.findIndex((token, i) => token !== picked[i]);
      const accepted = wrong < 0 ? proposed.length : wrong;
      const end = sequence.nextTokenIndex;
      if (wrong >= 0) await sequence.eraseContextTokenRanges([{ start: end - (proposed.length - accepted), end }]);
      const block = picked.slice(0, accepted + 1);
      const stop = block.indexOf(endOfText);
      yield stop < 0 ? block : block.slice(0, stop);
      if (stop >= 0) return;
      lookup.pushTokens(block);
      count += block.length;
      input = block.slice(-1);
    }
  }
  return { name, generate };
}

function sampling({ sampling: { temperature, topK, topP }, seed }: Omit<PeerRequest, 'maxTokens'>): object {
  return { temperature, topK, topP, minP: 0, seed };
}
