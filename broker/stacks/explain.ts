import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { BrokkrError } from '#lib/errors.ts';
import { keyString } from '#lib/object.ts';
import { fitsFilter } from '#lib/object-filter.ts';
import {
  Health,
  type ManifestEntry,
  ManifestSchema,
  type ObjectStatus,
  ObjectStatusSchema,
} from '#proto/brokkr/v1/content_pb.js';
import { type ObjectExplanationSchema, type ObjectFilter, ObjectFilterSchema, Wanted } from '#proto/brokkr/v1/explain_pb.js';
import {
  type ExplainStackRequest,
  type ExplainStackResponseSchema,
  UnansweredReason,
  type UnansweredSchema,
} from '#proto/brokkr/v1/stacks_pb.js';
import type { Query as AgentQuery } from '#proto/brokkr/v1/sync_pb.js';
import type { Query } from '../api/command.ts';
import type { Asked, Questions } from '../sync/questions.ts';
import type { Acceptance } from '../targeting/store.ts';
import { toTimestamp } from './rows.ts';
import { getStatus } from './status.ts';
import { findHeadManifest } from './status-store.ts';

type Status = Awaited<ReturnType<typeof getStatus>>;
type AgentStatus = NonNullable<Status['agents']>[number];
type Explained = MessageInitShape<typeof ObjectExplanationSchema>;

const MAX_PAGE = 500;

/**
 * What the agent says about objects of a stack; what the broker knows by itself when the agent says nothing. Throws
 * `stack_not_found`, `stack_not_owned`, `agent_not_found`, `agent_required`, `invalid_page_token` and what asking throws.
 */
export async function explainStack(
  request: ExplainStackRequest,
  { db, principal, ctx }: Query,
  { questions, acceptance }: { readonly questions: Pick<Questions, 'ask'>; readonly acceptance: Acceptance },
): Promise<MessageInitShape<typeof ExplainStackResponseSchema>> {
  const { stackId, group, kind, namespace, name } = request;
  const status = chooseAgent(await getStatus(db, principal, stackId, acceptance), request.agentId);
  const agentId = status.agentId ?? '';
  const filter = create(ObjectFilterSchema, { group, kind, namespace, name });
  const page = { limit: request.limit || MAX_PAGE, after: decodeToken(request.pageToken) };
  const explain: Extract<AgentQuery['body'], { case: 'explain' }>['value'] = {
    $typeName: 'brokkr.v1.ExplainQuery',
    ...{ stackId, filter, ...page },
  };
  const asked = await questions.ask(agentId, { case: 'explain', value: explain }, { keyId: principal.keyId, signal: ctx.signal });
  if (asked.kind === 'answered' && asked.answer.body.case === 'explanation') {
    const { objects, next } = asked.answer.body.value;
    return { status, objects, nextPageToken: encodeToken(next) };
  }
  const generation = status.desiredGeneration || status.receivedGeneration || 0n;
  const manifest = await findHeadManifest(db, stackId, String(generation));
  const entries = manifest ? fromBinary(ManifestSchema, manifest).entries : [];
  return { status, unanswered: unanswered(asked), ...recorded(entries, status, filter, page) };
}

/** The status on the agent meant. */
function chooseAgent({ agents = [], stack }: Status, agentId: string): AgentStatus {
  if (agentId === '' && agents.length > 1) {
    const names = agents.map(({ clusterName, agentName }) => `${clusterName}/${agentName}`);
    throw new BrokkrError('agent_required', `the stack is with ${agents.length} agents: name one`, {
      details: { agents: names.slice(0, MAX_PAGE) },
    });
  }
  const chosen = agentId === '' ? agents[0] : agents.find((agent) => agent.agentId === agentId);
  if (chosen) return chosen;
  const which = agentId === '' ? 'any agent' : `agent ${agentId}`;
  throw new BrokkrError('agent_not_found', `stack ${stack?.name ?? ''} neither reaches nor leaves ${which}`);
}

function unanswered(asked: Asked): MessageInitShape<typeof UnansweredSchema> {
  switch (asked.kind) {
    case 'offline':
      return {
        reason: UnansweredReason.AGENT_OFFLINE,
        message: asked.lastSeenAt === undefined ? 'the agent never had a session' : 'the agent has no session',
        ...seen(asked.lastSeenAt),
      };
    case 'silent':
      return {
        reason: UnansweredReason.AGENT_SILENT,
        message: 'the agent has a session and did not answer in time',
        ...seen(asked.lastSeenAt),
        waitedUntil: timestampFromMs(asked.untilMs),
      };
    case 'answered':
      return {
        reason: UnansweredReason.AGENT_FAILED,
        message: asked.answer.body.case === 'failure' ? asked.answer.body.value : 'the answer of the agent was not understood',
      };
  }
}

function seen(lastSeenAt: string | undefined) {
  return lastSeenAt === undefined ? {} : { lastSeenAt: toTimestamp(lastSeenAt) };
}

/** What the manifest wants, each with what the agent last reported of it. */
function recorded(
  entries: readonly ManifestEntry[],
  status: AgentStatus,
  filter: ObjectFilter,
  { limit, after }: { readonly limit: number; readonly after: string },
): { readonly objects: Explained[]; readonly nextPageToken: string } {
  const reported = new Map((status.objects as ObjectStatus[]).map((object) => [keyString(object), object]));
  const leaves = !status.desiredGeneration;
  const fitting = entries
    .filter((entry) => fitsFilter(entry, filter))
    .map((entry) => ({ key: keyString(entry), entry }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const rest = fitting.filter(({ key }) => key > after);
  const shown = rest.slice(0, limit);
  return {
    objects: shown.map(({ key, entry }) => ({
      status: reported.get(key) ?? create(ObjectStatusSchema, named(entry)),
      version: entry.version,
      wanted: leaves ? Wanted.STACK_LEAVES : Wanted.YES,
      generation: status.desiredGeneration || status.receivedGeneration || 0n,
      wantedDigest: Buffer.from(entry.objectDigest).toString('hex').slice(0, DIGEST_DIGITS),
      health: Health.UNKNOWN,
    })),
    nextPageToken: rest.length > limit ? encodeToken(shown.at(-1)?.key ?? '') : '',
  };
}

/** Digits of a digest that agents keep and show. */
const DIGEST_DIGITS = 32;

function named({ group, kind, namespace, name }: ManifestEntry) {
  return { group, kind, namespace, name };
}

function encodeToken(key: string): string {
  return Buffer.from(key).toString('base64url');
}

function decodeToken(token: string): string {
  if (!/^[\w-]*$/.test(token)) throw new BrokkrError('invalid_page_token', 'page_token is not one this broker gave out');
  return Buffer.from(token, 'base64url').toString();
}
