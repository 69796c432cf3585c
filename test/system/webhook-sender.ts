/** Sends one webhook to the URL in its arguments, from the network namespace it is started in, and prints how that ended. */
import { createAddressRule } from '../../lib/address-rule.ts';
import { systemClock } from '../../lib/clock.ts';
import { createSend, resolveHost } from '../../lib/webhook-send.ts';

const send = createSend({ clock: systemClock, mayReach: createAddressRule([]), allowedBy: '', resolve: resolveHost });
const request = { url: process.argv[2] ?? '', headers: {}, body: '{}', timeoutMs: 2000 };
console.log(JSON.stringify(await send(request, new AbortController().signal)));
