import { GenerationService } from '@ptp/protocol/gen/ptp/v1/generation_pb';
import fc from 'fast-check';
import { calls } from './generation-calls.ts';
import { rarely } from './rarely.ts';

/** Generates a request over HTTP/2 that need not be valid gRPC. */
export interface Frame {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const length = (bytes: number) => Buffer.of(bytes >>> 24, (bytes >>> 16) & 255, (bytes >>> 8) & 255, bytes & 255);
const prefixed = fc
  .tuple(rarely(fc.constantFrom(1, 2, 255), 0), rarely(fc.constantFrom(-1, 1, 2 ** 24, 2 ** 32 - 1), 0), calls)
  .map(([flag, more, { bytes }]) => {
    return Buffer.concat([Buffer.of(flag), length(more < 2 ? bytes.length + more : more), bytes]);
  });
export const frames: fc.Arbitrary<Frame> = fc.record({
  headers: fc.record({
    ':method': rarely(fc.constantFrom('GET', 'PUT', 'OPTIONS', 'QUERY'), 'POST'),
    ':path': fc.constantFrom(
      ...['Generate', 'Generate', 'Generate', 'Generate', 'Tokenize', 'GetModel', '', '%00'].map(
        (name) => `/${GenerationService.typeName}/${name}`,
      ),
      ...['/', '//', '/grpc.health.v1.Health/Check', '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'],
    ),
    'content-type': rarely(fc.constantFrom('application/json', 'application/grpc+json', '', 'x'), 'application/grpc'),
    te: fc.constant('trailers'),
    'grpc-encoding': rarely(fc.constantFrom('gzip', 'deflate', 'nothing', ''), 'identity'),
    'grpc-timeout': rarely(fc.constantFrom('1m', '5m', '0S', '-1S', 'x', '99999999H', '999999999S'), '30S'),
    'x-bin': rarely(fc.constantFrom('%%%', 'é', 'x'.repeat(20_000)), ''),
  }),
  body: fc.oneof(
    { weight: 6, arbitrary: prefixed },
    fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
    fc.constant(Buffer.alloc(0)),
  ),
});
