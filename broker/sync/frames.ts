import { create, toBinary } from '@bufbuild/protobuf';
import { BrokerMessageSchema } from '#proto/brokkr/v1/sync_pb.js';

/** A frame ready to be sent: `BrokerMessage` bytes. */
export interface Frame {
  readonly seq: bigint;
  readonly bytes: Uint8Array;
}

/** The numbers of both directions, and the frames the agent has not acknowledged yet. */
export class Frames {
  readonly #unacked: Frame[] = [];
  readonly #window: number;
  #seq = 0n;
  #ack = 0n;
  #taken = 0n;

  /** `window`: frames that may wait for their acknowledgement. */
  constructor(window: number) {
    this.#window = window;
  }

  /** Number of the last frame made. */
  get seq(): bigint {
    return this.#seq;
  }

  /** Highest frame of the agent taken. */
  get ack(): bigint {
    return this.#ack;
  }

  /** Frames taken from the agent. */
  get taken(): bigint {
    return this.#taken;
  }

  /** Oldest first. */
  get unacked(): readonly Frame[] {
    return this.#unacked;
  }

  /** Whether no more frames may be made before some are acknowledged. */
  get isFull(): boolean {
    return this.#unacked.length >= this.#window;
  }

  /** Notes the agent's frame numbers; frames up to `ack` need not be sent again. */
  took({ seq, ack }: { readonly seq: bigint; readonly ack: bigint }): void {
    this.#taken++;
    if (seq > this.#ack) this.#ack = seq;
    while (this.#unacked[0] && this.#unacked[0].seq <= ack) this.#unacked.shift();
  }

  /** Numbers a frame: scalar fields in front of the encoded body are one message (protobuf: concatenation merges). */
  make(body: Uint8Array): Frame {
    this.#seq++;
    const head = toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { seq: this.#seq, ack: this.#ack }));
    const frame = { seq: this.#seq, bytes: Buffer.concat([head, body]) };
    this.#unacked.push(frame);
    return frame;
  }
}
