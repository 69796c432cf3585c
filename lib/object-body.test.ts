import { describe, expect, it } from 'vitest';
import { objectBody, parseBody, withUid } from './object-body.ts';

const OBJECT = {
  apiVersion: 'example.org/v1',
  config: { metadata: { uid: 'not this one', text: '{"metadata":{' } },
  kind: 'Widget',
  metadata: { labels: { a: 'b' }, name: 'w' },
  size: 9007199254740993n,
};

describe('the body of an object', () => {
  it('holds the object exactly, long integers too', () => {
    expect(parseBody(objectBody(OBJECT))).toEqual(OBJECT);
  });

  it('takes a UID into the metadata of the object and into no other', () => {
    const metadata = { ...OBJECT.metadata, uid: 'u-1' };
    expect(parseBody(withUid(objectBody(OBJECT), 'u-1'))).toEqual({ ...OBJECT, metadata });
  });
});
