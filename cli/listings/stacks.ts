import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { getStack } from '../resolve.ts';
import { ageText } from '../show.ts';
import { entries, type Listing, query } from './listing.ts';

/** `brokkr get stacks`. */
export const stacks: Listing = {
  async path({ client, name, options, cli }) {
    if (name === undefined) return { path: `/api/v1/stacks${query({ label: options.label })}`, single: false };
    return { path: `/api/v1/stacks/${(await getStack(client, name, cli.signal)).id}`, single: true };
  },
  async rows(request) {
    const { client, options, cli } = request;
    const { items, more } = await entries(
      request,
      (name) => getStack(client, name, cli.signal),
      async (page) => {
        const filter = { ...page, label: options.label ?? '' };
        const { stacks: found, nextPageToken } = await client.call(StackService.method.listStacks, filter, cli.signal);
        return { items: found, token: nextPageToken };
      },
    );
    const now = cli.clock.now();
    const rows = items.map((stack) => [
      stack.name,
      String(stack.generation),
      stack.options?.paused ? { text: 'yes', colour: 'yellow' as const } : 'no',
      ageText(stack.createdAt, now),
      ageText(stack.updatedAt, now),
      stack.id,
    ]);
    return { header: ['NAME', 'GENERATION', 'PAUSED', 'AGE', 'CHANGED', 'ID'], rows, more };
  },
};
