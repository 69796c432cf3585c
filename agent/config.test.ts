import { describe, expect, it } from 'vitest';
import { loadConfig } from '#lib/config.ts';
import { AGENT_SETTINGS, checkAgentConfig } from './config.ts';

const load = (env: Readonly<Record<string, string>>) =>
  loadConfig(AGENT_SETTINGS, { env: { BROKKR__AGENT__PAK: 'key', ...env } });

describe('settings of the agent', () => {
  it('have the names and defaults that scripts rely on', () => {
    const { agent, log } = load({});
    expect(agent).toMatchObject({
      brokerUrl: 'http://localhost:3000',
      pollingIntervalMs: 10_000,
      healthPort: 8080,
      transport: 'auto',
    });
    expect(agent.deploymentHealthIntervalMs).toBe(60_000);
    expect(log.level).toBe('info');
  });

  it('never show the key', () => {
    expect(JSON.stringify(load({}))).not.toContain('"key"');
  });

  it('need a key', () => {
    const config = loadConfig(AGENT_SETTINGS, { env: {} });
    expect(() => checkAgentConfig(config)).toThrow(/no key: set BROKKR__AGENT__PAK or BROKKR__AGENT__PAK_FILE/);
  });

  it('take capabilities that are pairs and that the agent does not find out itself', () => {
    const capabilities = (text: string) => checkAgentConfig(load({ BROKKR__AGENT__CAPABILITIES: text }));
    expect(() => capabilities('region=eu, rack=a=1')).not.toThrow();
    expect(() => capabilities('region,kubernetes_version=1.2,kind:apps/X=v1')).toThrow(
      /"region" is not key=value[\s\S]*"kubernetes_version=1.2" names something[\s\S]*"kind:apps\/X=v1" names something/,
    );
    expect(() => capabilities(Array.from({ length: 65 }, (_, at) => `k${at}=v`).join(','))).toThrow('at most 64 are allowed');
  });

  it('warn of plain HTTP in production, refuse it when told to, and allow loopback', () => {
    const exposed = { BROKKR__AGENT__BROKER_URL: 'http://broker.example.com' };
    expect(checkAgentConfig(load(exposed))).toContain('not encrypted');
    expect(() => checkAgentConfig(load({ ...exposed, BROKKR__AGENT__PLAIN_HTTP: 'refuse' }))).toThrow(/no TLS/);
    expect(checkAgentConfig(load({ ...exposed, BROKKR__AGENT__PLAIN_HTTP: 'allow' }))).toBeUndefined();
    expect(checkAgentConfig(load({ ...exposed, BROKKR__AGENT__ENVIRONMENT: 'development' }))).toBeUndefined();
    expect(
      checkAgentConfig(load({ BROKKR__AGENT__BROKER_URL: 'http://127.0.0.1:3000', BROKKR__AGENT__PLAIN_HTTP: 'refuse' })),
    ).toBeUndefined();
    expect(checkAgentConfig(load({ BROKKR__AGENT__BROKER_URL: 'https://broker.example.com' }))).toBeUndefined();
  });
});
