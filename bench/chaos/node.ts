import { connect } from '@ptp/protocol/client';
import type { Tls } from '@ptp/protocol/credentials';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import type { BadNetwork } from './bad-network.ts';
import type { Authority } from './certificates.ts';
import type { Member } from './member.ts';

/** A service and the bad network in front of it. */
export interface Node {
  readonly member: Member;
  /** Process that runs the model, if it is not the service. */
  readonly engine?: Member;
  readonly network: BadNetwork;
  /** Port of the service itself. */
  readonly port: number;
  readonly authority: Authority;
  /** DNS names in the certificate of the service. */
  readonly names: readonly string[];
  /** Entry of the network's address in DNS. */
  readonly registration: { add(): void; remove(): void };
}

export async function stopNode({ member, engine, network, registration }: Node): Promise<void> {
  registration.remove();
  for (const process of [member, engine]) {
    process?.signal('SIGCONT');
    await process?.end('SIGKILL');
  }
  network.close();
}

/** Returns the number of open sequences of a verifier, queried directly and not through its network. */
export async function openSequences({ port }: Node, tls: Tls): Promise<number> {
  const client = connect(VerifierService, `127.0.0.1:${port}`, { tls, apart: true });
  try {
    return (await client.getTarget({}, { deadlineMs: 5000 })).openSequences;
  } finally {
    client.close();
  }
}
