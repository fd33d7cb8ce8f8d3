/** A model's name on the hub. */
export interface ModelName {
  readonly repo: string;
  /** Quantisation or file name that selects one of several models. */
  readonly selector: string | undefined;
}

/** Parses `org/repo` or `org/repo:selector`; returns undefined for anything else. */
export function parseModelName(text: string): ModelName | undefined {
  const [, repo, selector] = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?::(.+))?$/.exec(text) ?? [];
  return repo ? { repo, selector } : undefined;
}
