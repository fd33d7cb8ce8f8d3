import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, type ZlibOptions } from 'node:zlib';
import { PtpError } from '@ptp/protocol/errors';
import { invalidField } from '@ptp/protocol/validation';
import { errorCodes } from 'fastify';

type Decoder = (body: Uint8Array, options: ZlibOptions) => Promise<Uint8Array>;

const DECODERS: Readonly<Record<string, Decoder>> = {
  identity: async (body) => body,
  gzip: promisify(gunzip),
  deflate: promisify(inflate),
  br: promisify(brotliDecompress),
};

/** Code of the error for an unknown Content-Encoding. */
export const UNKNOWN_ENCODING = 'ERR_UNKNOWN_ENCODING';

/**
 * Decompresses a request body.
 *
 * @param encoding value of the Content-Encoding header
 * @param limit maximum number of bytes of the decompressed body
 * @throws PtpError `invalid_argument` for a damaged body, or an error with the HTTP status 415 for an unknown encoding
 *   and 413 for a body that is too large
 */
export async function decodeBody(body: Uint8Array, encoding: string | undefined, limit: number): Promise<Uint8Array> {
  const name = encoding?.trim().toLowerCase() || 'identity';
  const decode = Object.hasOwn(DECODERS, name) ? DECODERS[name] : undefined;
  if (!decode) {
    const { message } = invalidField('content-encoding', Object.keys(DECODERS).join(', '), encoding);
    throw Object.assign(new Error(message), { code: UNKNOWN_ENCODING, statusCode: 415 });
  }
  try {
    return await decode(body, { maxOutputLength: limit });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE')
      throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
    throw new PtpError('invalid_argument', `the request body is not valid ${name}`, { cause });
  }
}
