import { expect, it } from 'vitest';
import { defineConfig, loadConfig } from './config.ts';
import { openTelemetry, telemetrySettings } from './telemetry.ts';

const table = defineConfig(telemetrySettings('brokkr-test'));
const load = (env: Record<string, string>) =>
  loadConfig(table, {
    env: Object.fromEntries(Object.entries(env).map(([name, value]) => [`BROKKR__TELEMETRY__${name}`, value])),
  }).telemetry;

it('is off by default, and opens nothing then', async () => {
  const config = load({});
  expect(config).toEqual({
    enabled: false,
    otlpEndpoint: 'http://localhost:4317',
    samplingRate: 0.1,
    serviceName: 'brokkr-test',
  });
  expect(await openTelemetry(config, {} as never)).toBeUndefined();
});

it.each([
  ['http://collector:4317', '1'],
  ['https://collector.example.com', '0.25'],
  ['https://[fd00::1]:4317/', '1e-05'],
])('takes the endpoint %s and the rate %s', (endpoint, rate) => {
  expect(load({ OTLP_ENDPOINT: endpoint, SAMPLING_RATE: rate })).toMatchObject({
    otlpEndpoint: endpoint,
    samplingRate: Number(rate),
  });
});

it.each([
  ['http://collector', 'port of plain HTTP'],
  ['collector:4317', 'scheme'],
  ['grpc://collector:4317', 'scheme'],
  ['https://key@collector:4317', 'user'],
  ['https://collector:4317/v1/traces', 'path'],
])('refuses the endpoint %s (%s)', (endpoint) => {
  expect(() => load({ OTLP_ENDPOINT: endpoint })).toThrow(/TELEMETRY__OTLP_ENDPOINT: .* is not of the form/);
});

it.each([
  ['1.01', /at most 1/],
  ['-0.1', /at least 0/],
  ['10%', /not a number such as 0.25/],
])('refuses the rate %s', (rate, reason) => {
  expect(() => load({ SAMPLING_RATE: rate })).toThrow(reason);
});
