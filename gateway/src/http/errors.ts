import { type ErrorCode, publicMessage, toPtpError, wireErrors } from '@ptp/protocol/errors';

/** An error as OpenAI's API writes it. */
export interface OpenAiErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    /** The request field at fault. */
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** HTTP status and body for any thrown value. */
export function openAiError(error: unknown): { status: number; body: OpenAiErrorBody } {
  const refusal = protocolRefusal(error);
  if (refusal) return { status: refusal.status, body: errorBody(refusal.message, 'invalid_request_error') };
  const { code, field } = toPtpError(error);
  const { http, openai } = wireErrors[code];
  return { status: http, body: errorBody(publicMessage(error), openai, field, openAiCode(code, field)) };
}

export function errorBody(message: string, type: string, param?: string, code?: string): OpenAiErrorBody {
  return { error: { message, type, param: param ?? null, code: code ?? null } };
}

/** The values of `code` that OpenAI's clients test for. */
function openAiCode(code: ErrorCode, field: string | undefined): string | undefined {
  if (code === 'not_found' && field === 'model') return 'model_not_found';
  if (code === 'out_of_range') return 'context_length_exceeded';
  if (code === 'unauthenticated') return 'invalid_api_key';
  if (code === 'resource_exhausted') return 'rate_limit_exceeded';
  return undefined;
}

/** What the HTTP framework refuses before our handlers run. */
function protocolRefusal(error: unknown): { status: number; message: string } | undefined {
  const { code, statusCode, message } = (error ?? {}) as { code?: unknown; statusCode?: unknown; message?: unknown };
  if (typeof code !== 'string' || !(code.startsWith('FST_ERR_') || code === 'ECONNRESET')) return undefined;
  if (typeof statusCode !== 'number' || statusCode >= 500) return undefined;
  return { status: statusCode, message: protocolMessages[code] ?? String(message) };
}

const protocolMessages: Readonly<Record<string, string>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'the content type must be application/json',
  // as the framework names a body whose client has gone
  ECONNRESET: 'the request body did not arrive whole',
};
