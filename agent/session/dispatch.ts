import { BrokkrError } from '#lib/errors.ts';
import type { BrokerMessage, GoAway, Query, SessionConfig, Welcome } from '#proto/brokkr/v1/sync_pb.js';
import type { Received } from '../transport/wire.ts';
import type { Webhooks } from '../webhooks.ts';
import { bucketFrames } from './frames.ts';
import type { HeldState } from './held.ts';
import type { Intake } from './intake.ts';
import type { Body, Reports } from './reports.ts';

/** Where the frames of a session go. */
export interface Destinations {
  readonly intake: Intake;
  readonly held: HeldState;
  readonly reports: Reports;
  /** Answers with a frame of the session's own. */
  readonly say: (body: Body) => void;
  readonly configure: (config: SessionConfig) => void;
  /** Answers a question of the broker. */
  readonly answer: (query: Query) => void;
  readonly webhooks: Pick<Webhooks, 'told' | 'attempt' | 'answered'>;
  /** Ends the session with a failure that came later. */
  readonly fail: (error: unknown) => void;
}

/** Hands a frame after Welcome to whom it concerns. Throws when the broker breaks the protocol. */
export function dispatch(
  body: BrokerMessage['body'],
  { intake, held, reports, say, configure, answer, webhooks, fail }: Destinations,
): void {
  switch (body.case) {
    case 'upsert':
      intake.upsert(body.value);
      intake.delivered(body.value.revision);
      return;
    case 'tombstone':
      intake.tombstone(body.value);
      intake.delivered(body.value.revision);
      return;
    case 'absent':
      intake.absent(body.value.stackId);
      return;
    case 'buckets':
      for (const value of bucketFrames(held, body.value)) say({ case: 'bucketEntries', value });
      return;
    case 'snapshotBegin':
      intake.beginSnapshot(body.value.entries);
      return;
    case 'snapshotEnd': {
      const fault = intake.endSnapshot(body.value.rootDigest, body.value.revision);
      if (fault) throw new BrokkrError('protocol_violation', `the listing is broken, nothing was changed: ${fault}`);
      return;
    }
    case 'eventsAck':
      reports.eventsStored(body.value.bootId, body.value.through).catch(fail);
      return;
    case 'pong':
      intake.delivered(body.value.revision);
      return;
    case 'config':
      configure(body.value);
      return;
    case 'query':
      answer(body.value);
      return;
    case 'webhooksDue':
      webhooks.told();
      return;
    case 'webhookAttempt':
      webhooks.attempt(body.value);
      return;
    case 'webhookTurned':
      webhooks.answered(body.value);
      return;
    case 'goAway': // the session's own business
    case 'welcome': // once is enough
    case undefined: // a bare acknowledgement, or something newer than this agent
      return;
  }
}

/** The first frame of a session. Throws for anything but Welcome and GoAway, and when the session ends without one. */
export async function firstAnswer(
  frames: AsyncIterator<Received>,
): Promise<{ readonly case: 'welcome'; readonly value: Welcome } | { readonly case: 'goAway'; readonly value: GoAway }> {
  for (;;) {
    const next = await frames.next();
    if (next.done) throw new BrokkrError('unavailable', 'the broker ended the session before opening it');
    if (next.value === 'alive') continue;
    const { body } = next.value;
    if (body.case === 'welcome' || body.case === 'goAway') return body;
    throw new BrokkrError('protocol_violation', `the broker began with ${body.case ?? 'an empty frame'} instead of welcome`);
  }
}
