/** One measurement with the drafter off and on, next to each other, so that what the machine does meanwhile meets both. */
export interface Pair<Pass> {
  readonly plain: Pass;
  readonly drafted: Pass;
}

/** Makes a pass with the drafter off and one with it on; which comes first alternates with `turn`. */
export async function bothWays<Pass>(turn: number, pass: (drafting: boolean) => Promise<Pass>): Promise<Pair<Pass>> {
  const plainFirst = turn % 2 === 0;
  const one = await pass(!plainFirst);
  const two = await pass(plainFirst);
  return plainFirst ? { plain: one, drafted: two } : { plain: two, drafted: one };
}
