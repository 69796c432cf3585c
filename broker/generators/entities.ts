import { defineEntity, p, raw } from '@mikro-orm/postgresql';

/** The part of a generator that people edit. */
export const GeneratorEntity = defineEntity({
  name: 'Generator',
  tableName: 'generator',
  properties: {
    id: p.uuid().primary().defaultRaw('gen_random_uuid()'),
    name: p.string(),
    description: p.text().nullable(),
    isActive: p.boolean().default(true),
    isSystem: p.boolean().default(false),
    version: p.integer().version(),
    createdAt: p.datetime().defaultRaw('now()'),
    updatedAt: p
      .datetime()
      .defaultRaw('now()')
      .onUpdate(() => raw('now()')),
    deletedAt: p.datetime().nullable(),
  },
});
