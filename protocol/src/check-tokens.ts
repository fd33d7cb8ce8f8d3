import { PtpError } from './errors.ts';

/** @throws PtpError `invalid_argument` at the first id that is not in the vocabulary */
export function checkTokens(field: string, tokens: readonly number[], vocabulary: number): void {
  const bad = tokens.findIndex((token) => token >= vocabulary);
  if (bad < 0) return;
  const message = `\`${field}[${bad}]\` must be in [0, ${vocabulary - 1}], got ${tokens[bad]}`;
  throw new PtpError('invalid_argument', message, { field });
}
