/**
 * Merges the values of several sources in the order in which they arrive. Pulls at most one value per source ahead of
 * its use. Ending the iteration early, or an error in one source, ends all sources.
 */
export async function* merge<T>(sources: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const settled: { iterator: AsyncIterator<T>; outcome: Promise<IteratorResult<T>> }[] = [];
  let wake = () => {};
  const pull = (iterator: AsyncIterator<T>) => {
    const outcome = iterator.next();
    const settle = () => {
      settled.push({ iterator, outcome });
      wake();
    };
    outcome.then(settle, settle);
  };

  let running = iterators.length;
  try {
    iterators.forEach(pull);
    while (running > 0) {
      const next = settled.shift();
      if (!next) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const result = await next.outcome;
      if (result.done) {
        running--;
      } else {
        yield result.value;
        pull(next.iterator);
      }
    }
  } finally {
    // Not awaited: a source that waits ends through its own AbortSignal.
    for (const iterator of iterators) iterator.return?.()?.catch(() => {});
  }
}
