import { KeyRole, KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { getKey } from '../resolve.ts';
import { ageText, enumText, timeText } from '../show.ts';
import { entries, type Listing } from './listing.ts';

/** `brokkr get keys`. There is no single key in the API: a name cuts the table only. */
export const keys: Listing = {
  path: () => Promise.resolve({ path: '/api/v1/keys', single: false }),
  async rows(request) {
    const { client, cli } = request;
    const { items, more } = await entries(
      request,
      (name) => getKey(client, name, cli.signal),
      async (page) => {
        const { keys: found, nextPageToken } = await client.call(KeyService.method.listKeys, page, cli.signal);
        return { items: found, token: nextPageToken };
      },
    );
    const now = cli.clock.now();
    const rows = items.map((key) => [
      key.name,
      enumText(KeyRole, key.role) + (key.readOnly ? ', read-only' : ''),
      key.shortToken,
      key.revokedAt ? { text: 'revoked', colour: 'red' as const } : timeText(key.expiresAt),
      ageText(key.lastUsedAt, now),
      key.id,
    ]);
    return { header: ['NAME', 'ROLE', 'SHORT TOKEN', 'EXPIRES', 'LAST USED', 'ID'], rows, more };
  },
};
