import { randomUUID } from 'node:crypto';
import { readAuthorities } from '#lib/authorities.ts';
import { systemClock } from '#lib/clock.ts';
import { ConfigError } from '#lib/config.ts';
import { errorText } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { runTasks, stopSignal } from '#lib/run.ts';
import { openTelemetry } from '#lib/telemetry.ts';
import manifest from '../package.json' with { type: 'json' };
import { loadGatewayConfig } from './config.ts';
import { createGateway } from './gateway.ts';

const USAGE = `usage: brokkr-gateway serve

Ends TLS and passes requests on. Settings: docs/reference/gateway-settings.md.
`;

await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  if (args[0] === '--version') {
    process.stdout.write(`${manifest.version}\n`);
    return;
  }
  if (args.length > 0 && args[0] !== 'serve') {
    process.stderr.write(USAGE);
    process.exitCode = 2;
    return;
  }
  let log = createLog('gateway', { level: 'info' });
  try {
    const config = loadGatewayConfig(process.env);
    log = createLog('gateway', config.log);
    const { upstreamCaFile } = config.gateway;
    const ca = upstreamCaFile === undefined ? undefined : await readAuthorities(upstreamCaFile);
    const self = { log, clock: systemClock, version: manifest.version, instanceId: randomUUID() };
    await using telemetry = await openTelemetry(config.telemetry, self);
    await runTasks(createGateway(config, { ca, clock: systemClock, log, telemetry }), stopSignal());
    log.info('gateway has stopped');
  } catch (error) {
    if (error instanceof ConfigError) process.stderr.write(`${error.message}\n`);
    else log.fatal({ error: errorText(error) }, 'gateway stopped');
    process.exitCode = 1;
  }
}
