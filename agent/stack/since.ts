import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { keyString } from '#lib/object.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';

/** Remembers since when objects are in the state they are in, from one attempt to the next. */
export class Since {
  /** Milliseconds by the wall clock, by object, state and reason. */
  #times: ReadonlyMap<string, number> = new Map();

  /** What an attempt said of objects, with times: those said before in the same words keep theirs, the rest is forgotten. */
  stamp(statuses: readonly ObjectStatus[], nowMs: number): ObjectStatus[] {
    const times = new Map<string, number>();
    const stamped = statuses.map((status) => {
      const key = `${keyString(status)} ${status.state} ${status.reason}`;
      const sinceMs = this.#times.get(key) ?? nowMs;
      times.set(key, sinceMs);
      return status.since ? status : { ...status, since: timestampFromMs(sinceMs) };
    });
    this.#times = times;
    return stamped;
  }
}
