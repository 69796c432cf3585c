import type { MessageInitShape } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import type {
  DeploymentObjectSchema,
  ListDeploymentObjectsRequest,
  ListDeploymentObjectsResponseSchema,
} from '#proto/brokkr/v1/stacks_pb.js';
import type { Query } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import type { Acceptance } from '../targeting/store.ts';
import { findDeploymentObject, listDeploymentObjectSizes, selectDeploymentObjects } from './content-store.ts';
import { deploymentObjectToProto } from './rows.ts';
import { getOwned, isAssigned } from './stacks.ts';

/** Text that one list answers at most; a page holds at least one deployment object. */
const MAX_LIST_BYTES = 64 * 1024 * 1024;

/** A page of a stack's deployment objects with their texts, newest first; cut short where the texts get too long. */
export async function listObjects(
  request: ListDeploymentObjectsRequest,
  { db, principal }: Query,
): Promise<MessageInitShape<typeof ListDeploymentObjectsResponseSchema>> {
  await getOwned(db, principal, request.stackId);
  const page = readPage(request);
  const sizes = await listDeploymentObjectSizes(db, request.stackId, page);
  const whole = page.cut(sizes);
  const fitting = countFitting(whole.rows);
  if (fitting < whole.rows.length && request.limit === 0 && request.pageToken === '') {
    throw new BrokkrError(
      'page_required',
      `the texts have more than ${MAX_LIST_BYTES} bytes together: pass limit (1 to 1000) and page_token`,
    );
  }
  const { rows, nextPageToken } =
    fitting < whole.rows.length ? readPage({ limit: fitting, pageToken: request.pageToken }).cut(sizes) : whole;
  const objects = await selectDeploymentObjects(
    db,
    rows.map(({ id }) => id),
  );
  return { deploymentObjects: objects.map((row) => deploymentObjectToProto(row, row.yaml_content)), nextPageToken };
}

function countFitting(rows: readonly { readonly bytes: number }[]): number {
  let sum = 0;
  const first = rows.findIndex(({ bytes }) => {
    sum += bytes;
    return sum > MAX_LIST_BYTES;
  });
  return first === -1 ? rows.length : Math.max(1, first);
}

/** One deployment object. Throws `deployment_object_not_found`, `agent_not_associated`, `generator_not_associated`. */
export async function getObject(
  id: string,
  { db, principal }: Query,
  acceptance: Acceptance,
): Promise<MessageInitShape<typeof DeploymentObjectSchema>> {
  const row = await findDeploymentObject(db, id);
  if (!row) throw new BrokkrError('deployment_object_not_found', `no deployment object ${id}`);
  switch (principal.kind) {
    case 'admin':
      break;
    case 'generator':
      if (principal.generatorId !== row.generator_id) {
        throw new BrokkrError('generator_not_associated', `deployment object ${id} belongs to another generator's stack`);
      }
      break;
    case 'agent':
      if (!(await isAssigned(db, principal.agentId, row.stack_id, acceptance))) {
        throw new BrokkrError('agent_not_associated', `the stack of deployment object ${id} is not assigned to this agent`);
      }
  }
  return deploymentObjectToProto(row, row.yaml_content);
}
