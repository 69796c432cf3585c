import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { getGenerator } from '../resolve.ts';
import { ageText } from '../show.ts';
import { entries, type Listing } from './listing.ts';

/** `brokkr get generators`. */
export const generators: Listing = {
  async path({ client, name, cli }) {
    if (name === undefined) return { path: '/api/v1/generators', single: false };
    return { path: `/api/v1/generators/${(await getGenerator(client, name, cli.signal)).id}`, single: true };
  },
  async rows(request) {
    const { client, cli } = request;
    const { items, more } = await entries(
      request,
      (name) => getGenerator(client, name, cli.signal),
      async (page) => {
        const { generators: found, nextPageToken } = await client.call(GeneratorService.method.listGenerators, page, cli.signal);
        return { items: found, token: nextPageToken };
      },
    );
    const now = cli.clock.now();
    const rows = items.map(({ name, isActive, lastActiveAt, createdAt, id }) => [
      name,
      isActive ? 'yes' : { text: 'no', colour: 'yellow' as const },
      ageText(lastActiveAt, now),
      ageText(createdAt, now),
      id,
    ]);
    return { header: ['NAME', 'ACTIVE', 'LAST USED', 'AGE', 'ID'], rows, more };
  },
};
