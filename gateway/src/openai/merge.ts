/**
 * Merges the values of several sources in the order in which they arrive. Requests the next value of a source only when
 * the source's last value has been used. If the iteration ends early or one source fails, all sources end.
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
    // There is no await, because a source that is waiting ends only when its own AbortSignal fires.
    for (const iterator of iterators) iterator.return?.()?.catch(() => {});
  }
}
