/**
 * Contents of /traces.json and /traces/{id}.json (gateway/src/observe/request-trace.ts). Times are in microseconds, and
 * start times are relative to the start of the request.
 *
 * @typedef {{ service: 'verifier' | 'drafter', kind: 'open' | 'verify' | 'draft' | 'redraft', start_us: number, us:
 *   number, queue_us: number, run_us: number, batch_size: number, block: number, branches?: number, error?: string }}
 *   Call
 * @typedef {{ step: number, start_us: number, step_us: number, mode: string, reason: string, source: string, offered:
 *   number, budget: number, drafted: number, accepted: number, tokens: number, branch_taken: { accepted: number,
 *   length: number } | null, calls: Call[] }} Step
 * @typedef {{ id: string, request_id: string | null, trace_id: string | null, began: string, model: string, operation:
 *   string, seed: string, sampling: { temperature: number, top_k: number, top_p: number, min_p: number }, drafting:
 *   boolean, prompt_tokens: number, cached_tokens: number, completion_tokens: number, drafted: number, accepted:
 *   number, tokens_per_step: number | null, duration_us: number, first_token_us: number | null, us_per_token: number |
 *   null, finish: string, error: string | null }} Summary
 * @typedef {Summary & { opening: Call[], step_list: Step[], steps_left_out: number }} Trace
 */
export {};
