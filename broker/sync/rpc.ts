import { fromBinary } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import {
  type AgentMessage,
  type AgentSync,
  type BrokerMessage,
  BrokerMessageSchema,
  type FetchBlobsRequest,
  type PollRequest,
} from '#proto/brokkr/v1/sync_pb.js';
import { principalOf } from '../api/command.ts';
import type { Principal } from '../api/principal.ts';
import { type Blobs, CHUNK_BYTES, type Chunk } from './blobs.ts';
import type { Frame } from './frames.ts';
import type { AgentSession } from './session.ts';
import type { Sync } from './sync.ts';

/** What the service needs. */
export interface SyncServiceDeps {
  readonly sync: Sync;
  readonly blobs: Blobs;
  readonly clock: Clock;
  /** Aborts when the broker stops: held polls answer at once. */
  readonly stopping: AbortSignal;
}

/** Frames and bytes of one poll answer. */
const MAX_POLL_FRAMES = 128;
const MAX_POLL_BYTES = 1024 * 1024;
const DEFAULT_READ_BYTES = 1024 * 1024;
const MAX_READ_BYTES = 8 * 1024 * 1024;

/**
 * AgentSync over Connect. `Session` here serves clients of the Connect and gRPC-Web protocols; gRPC itself takes the
 * hot path (`stream.ts`) into the same sessions.
 */
export function syncService(deps: SyncServiceDeps): ServiceImpl<typeof AgentSync> {
  return {
    session: (messages, ctx) => streamSession(deps, messages, ctx),
    poll: (request, ctx) => poll(deps, request, ctx),
    async report(request, ctx) {
      const session = deps.sync.find(agentId(ctx), request.sessionToken, request.epoch);
      for (const message of request.messages) await deps.sync.receive(session, message);
      return { ack: session.frames.ack, messages: [] };
    },
    async *fetchBlobs(request, ctx) {
      assertSession(deps, request, ctx);
      yield* together(deps.blobs.chunks(agentId(ctx), request));
    },
    async readBlobs({ fetch, maxBytes }, ctx) {
      if (!fetch) throw new BrokkrError('invalid_request', 'fetch is not set');
      assertSession(deps, fetch, ctx);
      const limit = Math.min(maxBytes === 0 ? DEFAULT_READ_BYTES : maxBytes, MAX_READ_BYTES);
      const chunks: Chunk[] = [];
      let bytes = 0;
      for await (const chunk of deps.blobs.chunks(agentId(ctx), fetch)) {
        if (bytes > 0 && bytes + chunk.data.length > limit) break;
        bytes += chunk.data.length;
        chunks.push(chunk);
      }
      return { chunks };
    },
  };
}

/** Small chunks travel together: a message for each document would cost more than the document. */
async function* together(chunks: AsyncIterable<Chunk>): AsyncGenerator<{ chunks: Chunk[] }> {
  let batch: Chunk[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    if (batch.length > 0 && bytes + chunk.data.length > CHUNK_BYTES) {
      yield { chunks: batch };
      batch = [];
      bytes = 0;
    }
    batch.push(chunk);
    bytes += chunk.data.length;
  }
  if (batch.length > 0) yield { chunks: batch };
}

async function* streamSession(
  { sync }: SyncServiceDeps,
  messages: AsyncIterable<AgentMessage>,
  ctx: HandlerContext,
): AsyncGenerator<BrokerMessage> {
  const input = messages[Symbol.asyncIterator]();
  const first = await input.next();
  if (first.done || first.value.body.case !== 'hello')
    throw new BrokkrError('protocol_violation', 'the first frame is not hello');
  const session = await sync.open(principalOf(ctx), first.value.body.value, 'stream');
  session.took(first.value);
  const over = AbortSignal.any([session.signal, ctx.signal]);
  let finished = false;
  const reading = readAll(sync, session, input).then(() => {
    finished = true;
    session.wake();
  });
  try {
    for (;;) {
      const frame = await session.next();
      if (frame) yield fromBinary(BrokerMessageSchema, frame.bytes);
      else if (over.aborted || finished)
        return; // the agent sends no more and has its answers
      else await session.wait(over).catch(() => undefined);
    }
  } finally {
    sync.close(session, 'the stream ended');
    await input.return?.();
    await reading;
  }
}

/** Reads until the client sends no more or misbehaves; the latter ends the session. */
async function readAll(sync: Sync, session: AgentSession, input: AsyncIterator<AgentMessage>): Promise<void> {
  try {
    for (let next = await input.next(); !next.done; next = await input.next()) await sync.receive(session, next.value);
  } catch (error) {
    session.end(error instanceof Error ? error.message : 'reading failed');
  }
}

async function poll({ sync, clock, stopping }: SyncServiceDeps, request: PollRequest, ctx: HandlerContext) {
  const session = request.hello
    ? await sync.open(principalOf(ctx), request.hello, 'poll')
    : sync.find(agentId(ctx), request.sessionToken, request.epoch);
  for (const message of request.messages) await sync.receive(session, message);
  session.took({ seq: 0n, ack: request.ack });
  sync.seen(session);
  const resend = request.hello ? [] : [...session.frames.unacked];
  const holdMs = Math.min(request.holdMs === 0 ? sync.options.pollHoldMs : request.holdMs, sync.options.pollHoldMs);
  if (resend.length === 0 && !session.ready()) await hold(session, holdMs, clock, AbortSignal.any([ctx.signal, stopping]));
  const frames = await takeFrames(session, resend);
  sync.seen(session);
  return { messages: frames.map((frame) => fromBinary(BrokerMessageSchema, frame.bytes)), more: session.ready(), nextPollMs: 0 };
}

/** Waits until there is something to say, for `holdMs` at most. */
async function hold(session: AgentSession, holdMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  using deadline = clock.deadline(holdMs, AbortSignal.any([session.signal, signal]));
  while (!session.ready() && !deadline.signal.aborted) await session.wait(deadline.signal).catch(() => undefined);
}

/** What was sent before and not acknowledged comes first: the answer that carried it may have been lost. */
async function takeFrames(session: AgentSession, resend: readonly Frame[]): Promise<Frame[]> {
  const frames = resend.slice(0, MAX_POLL_FRAMES);
  let bytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
  if (frames.length < resend.length) return frames;
  while (frames.length < MAX_POLL_FRAMES && bytes < MAX_POLL_BYTES) {
    const frame = await session.next();
    if (!frame) break;
    frames.push(frame);
    bytes += frame.bytes.length;
  }
  return frames;
}

function assertSession({ sync }: SyncServiceDeps, { sessionToken, epoch }: FetchBlobsRequest, ctx: HandlerContext): void {
  sync.find(agentId(ctx), sessionToken, epoch);
}

function agentId(ctx: HandlerContext): string {
  const principal: Principal = principalOf(ctx);
  if (principal.kind !== 'agent') throw new BrokkrError('agent_pak_required', 'this method is for agent keys');
  return principal.agentId;
}
