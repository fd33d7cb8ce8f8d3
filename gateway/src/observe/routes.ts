import { PtpError } from '@ptp/protocol/errors';
import type { FastifyInstance } from 'fastify';
import { perfettoTrace } from './perfetto.ts';
import type { TraceStore } from './trace-store.ts';

/** Serves /traces.json, /traces/{id}.json and /traces/{id}.perfetto.json for the page at /traces. */
export function traceRoutes(app: FastifyInstance, store: TraceStore | undefined): void {
  const kept = () => {
    if (store) return store;
    throw new PtpError('not_found', 'traces are off: start the gateway with `PTP_TRACES_KEPT` above 0');
  };
  app.get('/traces.json', async () => ({
    traces: kept()
      .list()
      .map((trace) => trace.summary()),
  }));
  app.get('/traces/*', async (request, reply) => {
    const name = (request.params as { '*': string })['*'];
    const [, id = '', perfetto] = /^(\d+)(\.perfetto)?\.json$/.exec(name) ?? [];
    const trace = kept().get(id);
    if (!trace)
      throw new PtpError('not_found', `trace ${JSON.stringify(name.slice(0, 40))} does not exist or is no longer kept`);
    if (!perfetto) return trace.detail();
    reply.header('content-disposition', `attachment; filename="request-${id}.perfetto.json"`);
    return perfettoTrace(trace);
  });
}
