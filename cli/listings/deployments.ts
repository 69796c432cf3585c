import { type DeploymentObject, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { usageError } from '../failure.ts';
import { getStack } from '../resolve.ts';
import { timeText } from '../show.ts';
import { entries, type Listing, type Request } from './listing.ts';

/** `brokkr get deployments STACK`: the snapshots of a stack, newest first. */
export const deployments: Listing = {
  async path(request) {
    return { path: `/api/v1/stacks/${await stackId(request)}/deployment-objects`, single: false };
  },
  async rows(request) {
    const { client, cli } = request;
    const id = await stackId(request);
    const { items, more } = await entries<DeploymentObject>(
      { ...request, name: undefined },
      () => Promise.reject(new Error('not asked for one')),
      async (page) => {
        const method = StackService.method.listDeploymentObjects;
        const { deploymentObjects, nextPageToken } = await client.call(method, { ...page, stackId: id }, cli.signal);
        return { items: deploymentObjects, token: nextPageToken };
      },
    );
    const rows = items.map((object) => [
      String(object.revision),
      String(object.objectCount),
      object.isDeletionMarker ? 'yes' : 'no',
      object.yamlChecksum.slice(0, 12),
      timeText(object.submittedAt),
      object.id,
    ]);
    return { header: ['REVISION', 'OBJECTS', 'DELETION', 'CHECKSUM', 'SUBMITTED', 'ID'], rows, more };
  },
};

async function stackId({ client, name, options, cli }: Request): Promise<string> {
  const stack = name ?? options.stack;
  if (stack === undefined) throw usageError('of which stack?', 'brokkr get deployments STACK');
  return (await getStack(client, stack, cli.signal)).id;
}
