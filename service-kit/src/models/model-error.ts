/** An error whose message explains to users, in one sentence, the problem with a model and the next step. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
}
