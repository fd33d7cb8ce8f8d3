import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A repository of the fake hub. Paths that end in .gguf or .safetensors are in large file storage. */
export interface FakeRepo {
  files: Record<string, string | Buffer>;
  license?: string;
  commit?: string;
  /** Token required to read the files. The list of files is public. */
  gatedTo?: string;
  /** Token required to see the repository. */
  privateTo?: string;
  /** File sizes that the hub reports in place of the real sizes. */
  sizes?: Record<string, number>;
}

/** Serves repositories in memory, at the paths of the Hugging Face hub that its client library uses. */
export class FakeHub {
  readonly repos: Record<string, FakeRepo> = {};
  /** Method, path and range of each request. */
  readonly requests: string[] = [];
  /**
   * Number of bytes after which an answer with a large file is cut off, one entry for each of the next such answers.
   */
  cuts: number[] = [];
  /** Bytes that are sent in place of a file's content. */
  corrupt: Buffer | undefined;
  /** Status of all answers. Default: the real status of each answer. */
  status: number | undefined;
  url = '';
  readonly #server: Server = createServer((request, response) => this.#serve(request, response));

  async listen(): Promise<this> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { pathname } = new URL(request.url ?? '/', this.url);
    this.requests.push([request.method, pathname, request.headers.range].filter(Boolean).join(' '));
    if (this.status) {
      send(response, this.status, {});
      return;
    }
    const [, sha256] = /^\/storage\/(\w+)$/.exec(pathname) ?? [];
    if (sha256) {
      this.#storage(request, response, sha256);
      return;
    }
    const [, api, name = '', path = ''] = /^\/(api\/models\/)?([^/]+\/[^/]+)\/(.*)$/.exec(pathname) ?? [];
    const repo = this.repos[name];
    const token = request.headers.authorization?.replace('Bearer ', '');
    const isVisible = repo && (repo.privateTo === undefined || repo.privateTo === token);
    if (!isVisible) {
      // The hub hides from unauthorised clients whether a repository exists.
      send(response, token ? 404 : 401, { error: token ? 'Repository not found' : 'Invalid username or password.' });
    } else if (api) {
      this.#describe(response, name, repo, path);
    } else if (repo.gatedTo !== undefined && repo.gatedTo !== token) {
      send(response, token ? 403 : 401, { error: `Access to model ${name} is restricted` });
    } else {
      this.#resolve(response, repo, path);
    }
  }

  #describe(response: ServerResponse, name: string, repo: FakeRepo, path: string): void {
    const { files, license = 'apache-2.0', commit = COMMIT, gatedTo, sizes = {} } = repo;
    if (path === 'revision/main') {
      const gated = gatedTo === undefined ? false : 'manual';
      send(response, 200, { _id: '1', id: name, sha: commit, gated, cardData: { license } });
    } else if (path === `tree/${commit}`) {
      const entries = Object.entries(files).map(([file, content]) => {
        const size = sizes[file] ?? Buffer.byteLength(content);
        const lfs = isLarge(file) && { lfs: { oid: sha256Of(content), size, pointerSize: 130 } };
        return { type: 'file', path: file, size, oid: gitHashOf(content), ...lfs };
      });
      send(response, 200, entries);
    } else send(response, 404, { error: 'Not found' });
  }

  #resolve(response: ServerResponse, { files, commit = COMMIT }: FakeRepo, path: string): void {
    const file = decodeURIComponent(path.replace(`resolve/${commit}/`, ''));
    const content = files[file];
    if (content === undefined) {
      send(response, 404, { error: 'Entry not found' });
    } else if (isLarge(file)) {
      const hash = sha256Of(content);
      const size = Buffer.byteLength(content);
      response.writeHead(302, {
        location: `${this.url}/storage/${hash}`,
        'x-linked-etag': `"${hash}"`,
        'x-linked-size': size,
      });
      response.end();
    } else {
      response.writeHead(200, { etag: `"${gitHashOf(content)}"` });
      response.end(content);
    }
  }

  #storage(request: IncomingMessage, response: ServerResponse, sha256: string): void {
    const contents = Object.values(this.repos).flatMap(({ files }) => Object.values(files));
    const content = Buffer.from(this.corrupt ?? contents.find((candidate) => sha256Of(candidate) === sha256) ?? '');
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const range = from > 0 && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` };
    response.writeHead(range ? 206 : 200, { 'content-length': content.length - from, ...range });
    const cut = this.cuts.shift();
    if (cut === undefined) response.end(content.subarray(from));
    else response.write(content.subarray(from, from + cut), () => response.destroy());
  }
}

const COMMIT = '0123456789abcdef0123456789abcdef01234567';

function isLarge(path: string): boolean {
  return /\.(gguf|safetensors)$/.test(path);
}

function sha256Of(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function gitHashOf(content: string | Buffer): string {
  return createHash('sha1')
    .update(`blob ${Buffer.byteLength(content)}\0`)
    .update(content)
    .digest('hex');
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}
