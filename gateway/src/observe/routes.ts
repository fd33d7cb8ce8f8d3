import { PtpError } from '@ptp/protocol/errors';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { GenerationRequest } from '../decode/types.ts';
import { route } from '../http/route.ts';
import { perfettoTrace } from './perfetto.ts';
import { traceDetail, traceSummary } from './trace-json.ts';
import type { TraceStore } from './trace-store.ts';

/** /traces.json, /traces/{id}.json and /traces/{id}.perfetto.json; the page at /traces shows them. */
export function traceRoutes(app: FastifyInstance, store: TraceStore | undefined): void {
  const kept = () => {
    if (store) return store;
    throw new PtpError('not_found', 'no traces are kept: `PTP_TRACES_KEPT` is 0');
  };
  route(app, 'GET', '/traces.json', async () => ({ traces: kept().list().map(traceSummary) }));
  route(app, 'GET', '/traces/*', async (request, reply) => {
    const name = (request.params as { '*': string })['*'];
    const [, id = '', perfetto] = /^(\d+)(\.perfetto)?\.json$/.exec(name) ?? [];
    const trace = kept().get(id);
    if (!trace) throw new PtpError('not_found', `there is no trace ${JSON.stringify(name.slice(0, 40))}, or no longer`);
    if (!perfetto) return traceDetail(trace);
    reply.header('content-disposition', `attachment; filename="request-${id}.perfetto.json"`);
    return perfettoTrace(trace);
  });
}

/** What a generation is told of the HTTP request that it is for, so that its traces can tell it. */
export function traceFields(request: FastifyRequest, stream: boolean): Partial<GenerationRequest> {
  const { traceparent } = request.headers;
  const operation = request.routeOptions.url === '/v1/completions' ? 'text_completion' : 'chat';
  return { requestId: request.id, operation, stream, ...(typeof traceparent === 'string' && { traceparent }) };
}
