/** An error whose message tells a user in one sentence what is wrong with a model, and what to do next. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
}
