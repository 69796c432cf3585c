import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { type GeneratorSchema, GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { toOptionalTimestamp, toRegistration } from '../agents/messages.ts';
import type { Pipeline } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import { toTimestamp } from '../stacks/rows.ts';
import { deregisterAgent, registerAgent, registeredAgents } from './consent.ts';
import { assertOwnGenerator, createGenerator, deleteGenerator, rotateGeneratorPak, updateGenerator } from './generators.ts';
import { type GeneratorRow, getGenerator, listGenerators } from './store.ts';

/** GeneratorService. */
export function generatorService(pipeline: Pipeline): ServiceImpl<typeof GeneratorService> {
  const { method } = GeneratorService;
  const shape = (row: GeneratorRow, call: { etag(version: number): void }) => {
    call.etag(row.version);
    return toGenerator(row);
  };
  return {
    listGenerators: pipeline.query(method.listGenerators, async (request, { db }) => {
      const page = readPage(request);
      const { rows, nextPageToken } = page.cut(await listGenerators(db, page));
      return { generators: rows.map(toGenerator), nextPageToken };
    }),
    createGenerator: pipeline.command(method.createGenerator, async (request, command) => {
      const { row, pak } = await createGenerator(command, request);
      return { generator: shape(row, command), pak };
    }),
    getGenerator: pipeline.query(method.getGenerator, async ({ id }, query) => {
      assertOwnGenerator(query.principal, id);
      return { generator: shape(await getGenerator(query.db, id), query) };
    }),
    updateGenerator: pipeline.command(method.updateGenerator, async (request, command) => ({
      generator: shape(await updateGenerator(command, request), command),
    })),
    deleteGenerator: pipeline.command(method.deleteGenerator, async ({ id }, command) => {
      await deleteGenerator(command, id);
      return {};
    }),
    rotateGeneratorPak: pipeline.command(method.rotateGeneratorPak, async (request, command) => {
      const { row, pak } = await rotateGeneratorPak(command, request);
      return { generator: toGenerator(row), pak };
    }),
    registerAgent: pipeline.command(method.registerAgent, async (request, command) => ({
      registration: toRegistration(await registerAgent(command, request)),
    })),
    deregisterAgent: pipeline.command(method.deregisterAgent, async (request, command) => {
      await deregisterAgent(command, request);
      return {};
    }),
    listRegisteredAgents: pipeline.query(method.listRegisteredAgents, async ({ id }, query) => ({
      registrations: (await registeredAgents(query, id)).map(toRegistration),
    })),
  };
}

function toGenerator(row: GeneratorRow): MessageInitShape<typeof GeneratorSchema> {
  return {
    id: row.id,
    name: row.name,
    description: row.description ?? undefined,
    lastActiveAt: toOptionalTimestamp(row.last_active_at),
    isActive: row.is_active,
    isSystem: row.is_system,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    deletedAt: toOptionalTimestamp(row.deleted_at),
  };
}
