import { once } from 'node:events';
import { connect, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import { fromBinary } from '@bufbuild/protobuf';
import { Metadata, type StatusObject, status } from '@grpc/grpc-js';
import { clientOn, openChannel } from '@ptp/protocol/client';
import {
  type GenerateResponse,
  GenerateResponseSchema,
  GenerationService,
} from '@ptp/protocol/gen/ptp/v1/generation_pb';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serveGateway } from '../served.ts';
import { type Call, calls, isReadable } from './generation-calls.ts';
import { type Frame, frames } from './generation-frames.ts';
import { errorLog, fuzz, LANES, Unreachable } from './lanes.ts';

// Calls the gateway's gRPC server, which uses the real services. `npm run fuzz` makes 50,000 calls.

const RUNS = Number(process.env.PTP_FUZZ_RUNS ?? 400);
const tiny = new URL('../models/tiny', import.meta.url).pathname;

const errors = errorLog();
let server: Awaited<ReturnType<typeof serveGateway>>;
let channels: ReturnType<typeof openChannel>[];
beforeAll(async () => {
  server = await serveGateway(tiny, { logger: errors.logger });
  // Node closes a connection on which many calls are cancelled.
  channels = Array.from({ length: LANES }, () => openChannel(server.grpcAddress, { apart: true }));
});
afterAll(async () => {
  for (const channel of channels) channel.close();
  await server.close();
});

/** Status codes that indicate a mistake of the caller. */
const FAULTS: number[] = [
  status.INVALID_ARGUMENT,
  status.OUT_OF_RANGE,
  status.FAILED_PRECONDITION,
  status.NOT_FOUND,
  status.RESOURCE_EXHAUSTED,
  status.UNIMPLEMENTED,
];
/** Timeout in milliseconds, longer than any answer takes. */
const LONG = 60_000;

function answered({ path, bytes, metadata, leavesAfter, deadline = LONG }: Call, channel: (typeof channels)[0]) {
  const headers = new Metadata();
  for (const [key, value] of Object.entries(metadata)) headers.set(key, value);
  const same = (value: Buffer) => value;
  const call = channel.makeServerStreamRequest(path, same, same, bytes, headers, { deadline: Date.now() + deadline });
  const answers: Buffer[] = [];
  if (leavesAfter === 0) call.cancel();
  call.on('data', (answer: Buffer) => {
    answers.push(answer);
    if (answers.length === leavesAfter) call.cancel();
  });
  call.on('error', () => {});
  return new Promise<{ answers: Buffer[]; end: StatusObject }>((resolve) => {
    call.on('status', (end: StatusObject) => resolve({ answers, end }));
  });
}

async function attempt(call: Call, lane: number): Promise<string> {
  const { answers, end } = await answered(call, channels[lane] as (typeof channels)[0]);
  if (end.code === status.UNAVAILABLE) {
    await server.pair.services.ready(LONG);
    throw new Unreachable(end.details);
  }
  // This is how grpc-js answers bytes that are not a message.
  if (end.code === status.INTERNAL && end.details === 'Error deserializing request') {
    expect(isReadable(call)).toBe(false);
    return 'no message';
  }
  const allowed = [status.OK, ...FAULTS];
  if (call.leavesAfter !== undefined) allowed.push(status.CANCELLED);
  if (call.deadline !== undefined) allowed.push(status.DEADLINE_EXCEEDED);
  expect(allowed, `${end.code} ${end.details} ${errors.lines}`).toContain(end.code);
  if (end.code === status.OK && call.path.endsWith('/Generate') && call.leavesAfter === undefined) {
    const pieces = answers.map((answer) => fromBinary(GenerateResponseSchema, answer));
    checkAnswer(pieces, isReadable(call) ? call.message : {});
  }
  return status[end.code] as string;
}

/** Checks that steps come in order, that only the last piece has a finish reason, and that the request's limits hold. */
function checkAnswer(pieces: readonly GenerateResponse[], { seed, maxTokens = 0, stop = [] }: Call['message']) {
  expect(pieces.map(({ step }) => step?.step)).toEqual(pieces.map((_, i) => i));
  expect(pieces.findIndex(({ finishReason }) => finishReason !== '')).toBe(pieces.length - 1);
  if (seed !== undefined) expect(pieces[0]?.seed).toBe(seed);
  if (maxTokens > 0) expect(pieces.flatMap(({ tokens }) => tokens).length).toBeLessThanOrEqual(maxTokens);
  const text = pieces.map((piece) => piece.text).join('');
  for (const each of stop) expect(text).not.toContain(each);
}

/** Checks that the services hold no sequences, and that both are still usable. */
async function atRest(): Promise<void> {
  const { target, draft } = server.pair;
  const open = () => [target, draft].map((engine) => engine.usage().sequences);
  await expect.poll(open, { timeout: 15_000 }).toEqual([0, 0]);
  expect(errors.lines).toEqual([]);
  const client = clientOn(channels[0] as (typeof channels)[0], GenerationService);
  await expect.poll(() => client.getModel({})).toMatchObject({ verifierReady: true, drafterReady: true });
}

test(
  `${RUNS} calls of GenerationService: each is answered or rejected as the caller's mistake, and leaves no sequence open`,
  async () => {
    const seen = await fuzz({ what: 'GenerationService', count: RUNS, inputs: calls, attempt, atRest });
    for (const outcome of ['OK', 'INVALID_ARGUMENT', 'OUT_OF_RANGE', 'no message'])
      expect(seen[outcome] ?? 0).toBeGreaterThan(RUNS / 50);
  },
  60_000 + RUNS * 100,
);

/** Makes a request on its own connection. @returns the gRPC status, or the HTTP status if there is none */
async function requested({ headers, body }: Frame): Promise<string> {
  const session = connect(`http://${server.grpcAddress}`).on('error', () => {});
  try {
    const stream = session.request(headers, { endStream: false });
    let outcome = 'closed';
    const tell = (heads: IncomingHttpHeaders & IncomingHttpStatusHeader) => {
      const { ':status': http, 'grpc-status': code, 'grpc-message': message } = heads;
      // Only our own internal errors have this message.
      const name = message === 'internal error' ? message : status[Number(code)];
      outcome = code === undefined ? `HTTP ${http}` : `${name}`;
    };
    stream
      .on('response', tell)
      .on('trailers', tell)
      .on('error', () => {});
    stream.resume().end(body);
    await once(stream, 'close', { signal: AbortSignal.timeout(LONG) });
    return outcome;
  } finally {
    session.destroy();
  }
}

test('requests that are not gRPC end, and do not disturb other requests', async () => {
  const attempt = async (frame: Frame) => {
    const outcome = await requested(frame);
    expect(outcome).toMatch(/^[A-Z_]+$|^HTTP 4/);
    expect(outcome).not.toMatch(/^(UNKNOWN|UNAVAILABLE|DATA_LOSS)$/);
    return outcome;
  };
  const count = Math.min(RUNS, 2000);
  const seen = await fuzz({ what: 'requests other than gRPC', count, inputs: frames, attempt, atRest });
  for (const outcome of ['OK', 'UNIMPLEMENTED', 'INTERNAL']) expect(seen[outcome] ?? 0).toBeGreaterThan(count / 50);
}, 120_000);
