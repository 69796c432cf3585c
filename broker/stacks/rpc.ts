import type { MessageInitShape } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { YamlLimits } from '#lib/yaml.ts';
import {
  type ApplyRequest,
  type ApplyResponseSchema,
  type CreateDeploymentObjectRequest,
  type CreateDeploymentObjectResponseSchema,
  StackService,
  type WatchStackStatusRequest,
} from '#proto/brokkr/v1/stacks_pb.js';
import { type Command, type Pipeline, principalOf } from '../api/command.ts';
import type { Database } from '../database.ts';
import type { Questions } from '../sync/questions.ts';
import { storeGate } from '../targeting/gate.ts';
import type { Acceptance } from '../targeting/store.ts';
import { applyStack, prepareApply, SaltChanged } from './apply.ts';
import { retryStack, rollbackStack, setPaused } from './commands.ts';
import { type ContentDeps, publish, readContent } from './content.ts';
import { explainStack } from './explain.ts';
import { getHistory, getObjectHealth, getStackHealth } from './history.ts';
import { getObject, listObjects } from './objects.ts';
import { decodeOptions } from './options.ts';
import { deploymentObjectToProto, problemToProto, stackToProto } from './rows.ts';
import { addAnnotation, addLabel, removeAnnotation, removeLabel } from './rules.ts';
import { type AnnotationRow, type LabelRow, listAnnotations, listLabels } from './rules-store.ts';
import { createStack, deleteStack, findNamedStack, getOwned, getReadable, listStacks, lockOwned } from './stacks.ts';
import { getStatus, type StatusChanges, watchStatus } from './status.ts';
import type { StackRow } from './store.ts';
import { updateStack } from './update.ts';

/** What the service needs. */
export interface StackServiceDeps extends ContentDeps {
  readonly pipeline: Pipeline;
  readonly db: Database;
  readonly clock: Clock;
  readonly statusChanges: StatusChanges;
  readonly questions: Pick<Questions, 'ask'>;
}

/** Settings of the service. */
export interface StackServiceOptions {
  /** Whose stacks reach agents that do not say so themselves. */
  readonly acceptance: Acceptance;
  /** Limits of a published text. */
  readonly limits: YamlLimits;
}

/** How often an apply starts again because the stack was made by somebody else meanwhile. */
const APPLY_ATTEMPTS = 3;

/** StackService. */
export function stackService(deps: StackServiceDeps, options: StackServiceOptions): ServiceImpl<typeof StackService> {
  const { method } = StackService;
  const { pipeline } = deps;
  const { acceptance } = options;
  return {
    ...stackHandlers(pipeline),
    ...commandHandlers(pipeline, acceptance),
    ...ruleHandlers(pipeline, acceptance),
    apply: (request, ctx) => apply(deps, options, request, ctx),
    createDeploymentObject: (request, ctx) => createDeploymentObject(deps, options, request, ctx),
    listDeploymentObjects: pipeline.query(method.listDeploymentObjects, listObjects),
    getDeploymentObject: pipeline.query(method.getDeploymentObject, async ({ id }, query) => ({
      deploymentObject: await getObject(id, query, acceptance),
    })),
    getDeploymentObjectHealth: pipeline.query(method.getDeploymentObjectHealth, ({ id }, query) => getObjectHealth(id, query)),
    getStackHealth: pipeline.query(method.getStackHealth, ({ stackId }, query) => getStackHealth(stackId, query)),
    getStackStatus: pipeline.query(method.getStackStatus, ({ stackId }, { db, principal }) =>
      getStatus(db, principal, stackId, acceptance),
    ),
    watchStackStatus: (request, ctx) => watch(deps, options, request, ctx),
    explainStack: pipeline.query(method.explainStack, (request, query) =>
      explainStack(request, query, { questions: deps.questions, acceptance }),
    ),
    getStackHistory: pipeline.query(method.getStackHistory, getHistory),
  };
}

function stackHandlers(pipeline: Pipeline) {
  const { method } = StackService;
  return {
    listStacks: pipeline.query(method.listStacks, listStacks),
    createStack: pipeline.command(method.createStack, async (request, command) => {
      const stack = await createStack(request, command);
      command.etag(stack.version);
      return { stack: stackToProto(stack) };
    }),
    getStack: pipeline.query(method.getStack, async ({ id }, { db, principal, etag }) => {
      const stack = await getOwned(db, principal, id);
      etag(stack.version);
      return { stack: stackToProto(stack) };
    }),
    findStack: pipeline.query(method.findStack, async (request, query) => {
      const stack = await findNamedStack(request, query);
      query.etag(stack.version);
      return { stack: stackToProto(stack) };
    }),
    updateStack: pipeline.command(method.updateStack, async (request, command) => {
      const stack = await updateStack(request, command);
      command.etag(stack.version);
      return { stack: stackToProto(stack) };
    }),
    deleteStack: pipeline.command(method.deleteStack, async ({ id }, command) => {
      await deleteStack(id, command);
      return {};
    }),
  };
}

function commandHandlers(pipeline: Pipeline, acceptance: Acceptance) {
  const { method } = StackService;
  const answer = (stack: StackRow, command: Command) => {
    command.etag(stack.version);
    return { stack: stackToProto(stack) };
  };
  return {
    rollbackStack: pipeline.command(method.rollbackStack, async (request, command) => {
      const { stack, from } = await rollbackStack(request, command, acceptance);
      return { ...answer(stack, command), fromGeneration: BigInt(from.generation) };
    }),
    retryStack: pipeline.command(method.retryStack, async ({ id }, command) => answer(await retryStack(id, command), command)),
    pauseStack: pipeline.command(method.pauseStack, async (request, command) =>
      answer(await setPaused(request, true, command), command),
    ),
    resumeStack: pipeline.command(method.resumeStack, async (request, command) =>
      answer(await setPaused(request, false, command), command),
    ),
  };
}

function ruleHandlers(pipeline: Pipeline, acceptance: Acceptance) {
  const { method } = StackService;
  return {
    listStackLabels: pipeline.query(method.listStackLabels, async ({ stackId }, { db, principal }) => {
      await getReadable(db, principal, stackId, acceptance);
      return { labels: (await listLabels(db, stackId)).map(labelToProto) };
    }),
    addStackLabel: pipeline.command(method.addStackLabel, async ({ stackId, label }, command) => ({
      label: labelToProto(await addLabel(stackId, label, command)),
    })),
    removeStackLabel: pipeline.command(method.removeStackLabel, async ({ stackId, label }, command) => {
      await removeLabel(stackId, label, command);
      return {};
    }),
    listStackAnnotations: pipeline.query(method.listStackAnnotations, async ({ stackId }, { db, principal }) => {
      await getReadable(db, principal, stackId, acceptance);
      return { annotations: (await listAnnotations(db, stackId)).map(annotationToProto) };
    }),
    addStackAnnotation: pipeline.command(method.addStackAnnotation, async ({ stackId, key, value }, command) => ({
      annotation: annotationToProto(await addAnnotation(stackId, key, value, command)),
    })),
    removeStackAnnotation: pipeline.command(method.removeStackAnnotation, async ({ stackId, key }, command) => {
      await removeAnnotation(stackId, key, command);
      return {};
    }),
  };
}

function labelToProto({ id, stack_id, label }: LabelRow) {
  return { id, stackId: stack_id, label };
}

function annotationToProto({ id, stack_id, key, value }: AnnotationRow) {
  return { id, stackId: stack_id, key, value };
}

/** Parsing happens before the transaction; its failure is thrown inside, where a repeated request still gets its old answer. */
async function settled<T>(work: Promise<T>): Promise<() => T> {
  try {
    const value = await work;
    return () => value;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

async function createDeploymentObject(
  deps: StackServiceDeps,
  { limits }: StackServiceOptions,
  request: CreateDeploymentObjectRequest,
  ctx: HandlerContext,
): Promise<MessageInitShape<typeof CreateDeploymentObjectResponseSchema>> {
  const content = await settled(readDraft(deps, limits, request, ctx));
  const handler = deps.pipeline.command(StackService.method.createDeploymentObject, async ({ stackId, gate }, command) => {
    const read = content();
    const stack = await lockOwned(command, stackId);
    const { object } = await publish(command, stack, read, deps.blobs, {
      current: decodeOptions(stack.options),
      wanted: undefined,
      gate: gate && storeGate(gate, 'invalid_deployment_object'),
    });
    return { deploymentObject: deploymentObjectToProto(object, read.text), warnings: read.warnings.map(problemToProto) };
  });
  return await handler(request, ctx);
}

async function readDraft(
  deps: StackServiceDeps,
  limits: YamlLimits,
  request: CreateDeploymentObjectRequest,
  ctx: HandlerContext,
) {
  const stack = await getOwned(deps.db, principalOf(ctx), request.stackId);
  const draft = {
    text: request.yamlContent,
    salt: stack.salt,
    validation: request.validation,
    marker: request.isDeletionMarker === true,
    allowEmpty: decodeOptions(stack.options).allowEmpty,
  };
  return await readContent(deps, draft, limits, ctx.signal);
}

async function apply(
  deps: StackServiceDeps,
  options: StackServiceOptions,
  request: ApplyRequest,
  ctx: HandlerContext,
): Promise<MessageInitShape<typeof ApplyResponseSchema>> {
  for (let attempt = 1; ; attempt++) {
    const prepared = await settled(prepareApply(deps, request, principalOf(ctx), options.limits, ctx.signal));
    const handler = deps.pipeline.command(StackService.method.apply, (message, command) =>
      applyStack(message, command, deps, prepared(), options),
    );
    try {
      return await handler(request, ctx);
    } catch (error) {
      if (!(error instanceof SaltChanged)) throw error;
      if (attempt === APPLY_ATTEMPTS)
        throw new BrokkrError('unavailable', 'the stack keeps being made anew, try again', { cause: error });
    }
  }
}

async function* watch(
  { db, clock, statusChanges }: StackServiceDeps,
  { acceptance }: StackServiceOptions,
  { stackId }: WatchStackStatusRequest,
  ctx: HandlerContext,
) {
  const principal = principalOf(ctx);
  let seen = false;
  const read = async () => {
    try {
      const status = await getStatus(db, principal, stackId, acceptance);
      seen = true;
      return status;
    } catch (error) {
      if (seen && error instanceof BrokkrError && error.code === 'stack_not_found') return undefined; // gone from every agent
      throw error;
    }
  };
  for await (const status of watchStatus({ read, changes: statusChanges, clock }, stackId, ctx.signal)) yield { status };
}
