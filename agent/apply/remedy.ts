import { classify, isConversion, KubeError } from '../kube/errors.ts';
import { settleConflict } from './conflict.ts';
import { refusedFields, removeForRecreation, wouldCreate } from './recreate.ts';
import { type Outcome, readMetadata, refOf } from './run.ts';
import { note, type Sending } from './sending.ts';
import { hasOtherVersions, moveVersions } from './takeover.ts';

/** Ways out tried for one object in one attempt: a few kinds of refusal may follow each other, and objects change meanwhile. */
export const MAX_REMEDIES = 8;

/** Looks for a way out of a refusal: an outcome, or `again` when the object can be sent once more. Undefined when there is none. */
export async function findRemedy(sending: Sending, error: unknown, signal: AbortSignal): Promise<'again' | Outcome | undefined> {
  if (!(error instanceof KubeError) || sending.remedies >= MAX_REMEDIES) return undefined;
  sending.remedies += 1;
  if (classify(error) === 'policy') return (await settleConflict(sending, error, signal)) ?? 'again';
  if (sending.uid === undefined) return isConversion(error) ? await convert(sending, signal) : undefined;
  if (isOfUid(error)) return await lookAgain(sending, signal);
  if (error.status === 422 && classify(error) === 'permanent') return await createAnew(sending, sending.uid, error, signal);
  return isConversion(error) ? await convert(sending, signal) : undefined;
}

/** An object sent with its UID: 422 when another one has the name by now, 409 when there is none, which any race may be too. */
function isOfUid(error: KubeError): boolean {
  return classify(error) === 'race' || (error.status === 422 && error.causes.some(({ field }) => field === 'metadata.uid'));
}

async function lookAgain(sending: Sending, signal: AbortSignal): Promise<'again' | undefined> {
  const { run, object, resource } = sending;
  const live = await readMetadata(run, refOf(object, resource), signal);
  if (live?.uid === sending.uid) return undefined;
  sending.uid = undefined;
  sending.exists = sending.replaced = live !== undefined;
  return 'again';
}

async function createAnew(
  sending: Sending,
  uid: string,
  error: KubeError,
  signal: AbortSignal,
): Promise<'again' | Outcome | undefined> {
  const { run, object, resource } = sending;
  if (!(await wouldCreate(run, object, resource, signal))) return undefined;
  const fields = refusedFields(error);
  const outcome = await removeForRecreation(run, object, resource, { uid, fields }, signal);
  if (outcome) return outcome;
  note(sending, 'immutable', [], fields);
  sending.recreated = true;
  sending.uid = undefined;
  sending.exists = false;
  return 'again';
}

async function convert({ run, object, resource }: Sending, signal: AbortSignal): Promise<'again' | undefined> {
  const ref = refOf(object, resource);
  const live = await readMetadata(run, ref, signal);
  if (!live || !hasOtherVersions(live, resource)) return undefined;
  await moveVersions(run, ref, live, signal);
  return 'again';
}
