import { explainFailure } from '#lib/reach-failure.ts';

/** Where an upstream is and whom to trust there. */
export interface Address {
  readonly url: URL;
  /** The only authorities that count now, PEM; undefined: those of the system. */
  readonly ca: () => string | undefined;
}

/** An upstream was not reached: it has seen nothing of the request, which may go to another one. */
export class DialError extends Error {
  override readonly name = 'DialError';
}

/** The error of a connection that did not come about, with its cause and what to look at in words. */
export function dialError({ url }: Address, error: unknown): DialError {
  return new DialError(`${url.host}: ${explainFailure(error)}`, { cause: error });
}
