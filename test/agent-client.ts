import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { entryDigest, RootDigest, tombstoneDigest } from '../lib/digest.ts';
import {
  type AgentMessage,
  AgentMessageSchema,
  type BrokerMessage,
  BrokerMessageSchema,
  type HelloSchema,
} from '../proto/gen/brokkr/v1/sync_pb.js';

type Body = NonNullable<MessageInitShape<typeof AgentMessageSchema>['body']>;
type Case = Exclude<BrokerMessage['body']['case'], undefined>;
type Value<C extends Case> = Extract<BrokerMessage['body'], { case: C }>['value'];

/** A scripted agent: speaks the protocol frame by frame, decides nothing. */
export interface ScriptedAgent extends Disposable {
  /** Sends a frame. */
  send(body: Body): void;
  /** The next frame of this kind; frames of other kinds before it are kept aside. Rejects when the stream ends or after 10 s. */
  take<C extends Case>(kind: C): Promise<Value<C>>;
  /** Frames received and not taken. */
  readonly waiting: readonly BrokerMessage[];
  /** Resolves with the stream's end: its gRPC code and text. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  /** What an honest agent holds after taking the frames so far. */
  readonly held: RootDigest;
}

/** A Hello with everything required. */
export function hello(changes: MessageInitShape<typeof HelloSchema> = {}): Body {
  const base = { versions: [1], installId: 'install', clusterUid: 'cluster-1', processId: 'process-1', agentVersion: 'test' };
  return { case: 'hello', value: { ...base, ...changes } as never };
}

/** Opens `AgentSync.Session` with a plain gRPC client. */
export function connectAgent(url: string, pak: string): ScriptedAgent {
  const client = new Client(url.replace(/^https?:\/\//, ''), credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', pak);
  const stream = client.makeBidiStreamRequest<AgentMessage, BrokerMessage>(
    '/brokkr.v1.AgentSync/Session',
    (message) => Buffer.from(toBinary(AgentMessageSchema, message)),
    (bytes) => fromBinary(BrokerMessageSchema, bytes),
    metadata,
  );
  const waiting: BrokerMessage[] = [];
  const held = new RootDigest();
  const wakers = new Set<() => void>();
  const wake = () => {
    for (const waker of wakers) waker();
  };
  let seq = 0n;
  let ack = 0n;
  let over: { readonly code: number; readonly details: string } | undefined;
  const ended = new Promise<{ readonly code: number; readonly details: string }>((resolve) => {
    const finish = (end: { readonly code: number; readonly details: string }) => {
      over ??= end;
      resolve(end);
      wake();
    };
    stream.on('status', finish);
    stream.on('error', (error: Error & { code?: number; details?: string }) =>
      finish({ code: error.code ?? 2, details: error.details ?? error.message }),
    );
  });
  stream.on('data', (message: BrokerMessage) => {
    ack = message.seq;
    hold(held, message);
    waiting.push(message);
    wake();
  });
  return {
    waiting,
    ended,
    held,
    send(body) {
      seq++;
      stream.write(create(AgentMessageSchema, { seq, ack, body }));
    },
    take(kind) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(
          () =>
            settle(() =>
              reject(new Error(`no ${kind} within 10 s; waiting: ${waiting.map(({ body }) => body.case).join(', ')}`)),
            ),
          10_000,
        );
        const settle = (action: () => void) => {
          clearTimeout(timer);
          wakers.delete(look);
          action();
        };
        const look = () => {
          const at = waiting.findIndex(({ body }) => body.case === kind);
          const found = waiting[at];
          if (found) {
            waiting.splice(at, 1);
            settle(() => resolve(found.body.value as never));
          } else if (over) settle(() => reject(new Error(`the stream ended with ${over?.code}: ${over?.details}`)));
        };
        wakers.add(look);
        look();
      });
    },
    [Symbol.dispose]() {
      stream.cancel();
      client.close();
    },
  };
}

const POLICY = { 0: 'delete', 1: 'delete', 2: 'orphan', 3: 'delete_and_wait' } as const;

/** Root digest bookkeeping of an agent that takes everything. */
function hold(held: RootDigest, { body }: BrokerMessage): void {
  if (body.case === 'upsert') {
    const { stackId, generation, manifestDigest, optionsDigest } = body.value;
    held.set(stackId, entryDigest(stackId, generation, manifestDigest, optionsDigest));
  } else if (body.case === 'tombstone')
    held.set(body.value.stackId, tombstoneDigest(body.value.stackId, body.value.generation, POLICY[body.value.policy]));
}
