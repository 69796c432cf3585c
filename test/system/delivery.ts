import { createAuthority } from '../certificate-authority.ts';
import { configMap, healthyAt, rigOn } from '../e2e/rig.ts';
import { startGateway, type TestGateway } from '../gateway-rig.ts';
import { useKube } from '../kube.ts';
import { type Program, startAgent, startBroker, type TestBroker, type TestProcess, temporaryDirectory } from '../processes.ts';

/** What runs when a delivery has worked. */
export interface Delivery {
  readonly broker: TestBroker;
  readonly gateway: TestGateway;
  readonly agent: TestProcess;
}

/** Where the programs come from, and what they are to see. */
export interface DeliveryOptions {
  readonly databaseUrl: string;
  readonly program: (name: 'brokkr-broker' | 'brokkr-gateway' | 'brokkr-agent') => Program;
}

/**
 * Starts broker, gateway and agent, the agent behind the gateway's TLS, and publishes a ConfigMap until it is healthy on the real
 * API server. All of them still run afterwards.
 */
export async function deliver({ databaseUrl, program }: DeliveryOptions): Promise<Delivery> {
  const certificate = await temporaryDirectory();
  const authority = await createAuthority('edge');
  await authority.issue(certificate, { hosts: ['IP:127.0.0.1'] });
  const kube = await useKube();
  const broker = await startBroker({ databaseUrl, program: program('brokkr-broker') });
  const gateway = await startGateway([certificate], [broker.url], {}, program('brokkr-gateway'));
  const rig = rigOn(kube, broker, databaseUrl);
  const { pak, kubeconfigPath, namespace, label } = await rig.register();
  const agent = await startAgent({
    brokerUrl: `https://127.0.0.1:${gateway.port}`,
    pak,
    kubeconfigPath,
    namespace,
    name: label,
    env: { BROKKR__AGENT__CA_FILE: authority.certFile },
    program: program('brokkr-agent'),
  });
  const stack = await rig.publish(label, configMap(await kube.namespace('delivery'), 'a'), label);
  await rig.status(stack.id, healthyAt(1));
  return { broker, gateway, agent };
}
