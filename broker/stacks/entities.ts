import { defineEntity, p } from '@mikro-orm/postgresql';

/** What of a stack is edited through a unit of work; its head moves by the statements of `store.ts`. */
export const StackEntity = defineEntity({
  name: 'Stack',
  tableName: 'stack',
  properties: {
    id: p.uuid().primary().defaultRaw('gen_random_uuid()'),
    name: p.string().length(255),
    description: p.text().nullable(),
    generatorId: p.uuid(),
    /** 16 random bytes: object digests of different stacks must not be comparable. */
    salt: p.uint8array(),
    options: p.uint8array(),
    optionsDigest: p.uint8array(),
    deletionPolicy: p.string(),
    version: p.integer().version(),
  },
});
