import { create } from '@bufbuild/protobuf';
import { type GoAway, GoAwayReason, GoAwaySchema } from '#proto/brokkr/v1/sync_pb.js';

/** Why sessions end, what the agent is told, and when it may come back (at a random time within the window). */
const FAREWELLS = {
  draining: [GoAwayReason.DRAINING, 'the broker is stopping', 0, 10_000],
  superseded: [GoAwayReason.SUPERSEDED, 'another process of this agent has the session', 60_000, 120_000],
  outdated: [GoAwayReason.SUPERSEDED, 'a newer session of this agent has begun', 5_000, 15_000],
  revoked: [GoAwayReason.REVOKED, 'the key was revoked or has expired', 15_000, 60_000],
  inactive: [GoAwayReason.INACTIVE, 'the agent was set INACTIVE', 15_000, 30_000],
  deleted: [GoAwayReason.DELETED, 'the agent was deleted', 60_000, 300_000],
  age: [GoAwayReason.AGE, 'renew the stream', 0, 10_000],
} as const satisfies Record<string, readonly [GoAwayReason, string, number, number]>;

/** The farewell of this name; `windowMs` replaces the end of its window. */
export function farewell(name: keyof typeof FAREWELLS, windowMs?: number): GoAway {
  const [reason, detail, windowMinMs, windowMaxMs] = FAREWELLS[name];
  return create(GoAwaySchema, {
    reason,
    detail,
    windowMinMs,
    windowMaxMs: windowMs ?? windowMaxMs,
    keepUntilReplaced: name === 'age',
  });
}
