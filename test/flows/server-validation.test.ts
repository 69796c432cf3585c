import { beforeAll, describe, expect, it } from 'vitest';
import { readCluster } from '../../flows/evaluate/read-cluster.ts';
import type { ValueObject } from '../../lib/object.ts';
import { type Kube, useKube } from '../kube.ts';

/** The body of a policy: what differs from a valid one. */
type Case = [what: string, spec: unknown, rest?: object];

const from = (...peers: unknown[]) => ({ podSelector: {}, ingress: [{ from: peers }] });
const to = (...peers: unknown[]) => ({ podSelector: {}, policyTypes: ['Egress'], egress: [{ to: peers }] });
const ports = (...items: unknown[]) => ({ podSelector: {}, ingress: [{ ports: items }] });
const block = (cidr: unknown, ...except: unknown[]) => to({ ipBlock: { cidr, except } });
const labels = (matchLabels: unknown) => ({ podSelector: { matchLabels } });
const expression = (item: unknown) => ({ podSelector: { matchExpressions: [item] } });
const long = (length: number) => 'a'.repeat(length);

const CASES: Case[] = [
  ['an empty spec', {}],
  ['no spec', undefined],
  ['a null spec', null],
  ['a spec that is text', 'x'],
  ['a null podSelector', { podSelector: null }],
  ['default deny', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }],
  ['an unknown field of the spec', { podSelector: {}, ingres: [] }],
  ['a field in another case', { podselector: {} }],
  ['an unknown field of a rule', { podSelector: {}, ingress: [{ to: [] }] }],
  ['an unknown field of a peer', from({ podSelector: {}, nodeSelector: {} })],
  ['an unknown field of the object', { podSelector: {} }, { foo: 1 }],
  ['a status', { podSelector: {} }, { status: {} }],
  ['ingress that is a mapping', { podSelector: {}, ingress: {} }],
  ['from that is a mapping', { podSelector: {}, ingress: [{ from: { podSelector: {} } }] }],
  ['a null rule', { podSelector: {}, ingress: [null] }],
  ['a null peer', from(null)],
  ['a null port', ports(null)],
  ['an empty from', from()],
  ['an empty peer', from({})],
  ['an empty podSelector as peer', from({ podSelector: {} })],
  ['a null podSelector as peer', from({ podSelector: null })],
  ['namespaceSelector and podSelector', from({ namespaceSelector: {}, podSelector: {} })],
  ['ipBlock and podSelector', from({ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} })],
  ['ipBlock and namespaceSelector', to({ ipBlock: { cidr: '10.0.0.0/8' }, namespaceSelector: {} })],
  ['an empty ipBlock', to({ ipBlock: {} })],
  ['an address for a CIDR', block('10.0.0.1')],
  ['a prefix that is too long', block('10.0.0.0/33')],
  ['a negative prefix', block('10.0.0.0/-1')],
  ['a name for a CIDR', block('example.test/24')],
  ['host bits', block('10.0.0.1/8')],
  ['leading zeros', block('010.000.000.000/8')],
  ['a prefix with a leading zero', block('10.0.0.0/08')],
  ['IPv6 in capitals', block('2001:DB8::/32')],
  ['IPv6 written out', block('2001:0db8:0:0:0:0:0:0/32')],
  ['IPv6 with an IPv4 end', block('64:ff9b::192.0.2.0/120')],
  ['IPv6 with host bits', block('2001:db8::1/32')],
  ['IPv6', block('2001:db8::/32')],
  ['IPv6 with a zone', block('fe80::1%eth0/64')],
  ['an IPv4-mapped CIDR', block('::ffff:10.0.0.0/104')],
  ['white space in a CIDR', block(' 10.0.0.0/8')],
  ['an octet of 256', block('10.0.0.256/32')],
  ['everything', block('0.0.0.0/0')],
  ['an except inside', block('10.0.0.0/8', '10.1.0.0/16')],
  ['an except that is the CIDR', block('10.0.0.0/8', '10.0.0.0/8')],
  ['an except that is larger', block('10.0.0.0/8', '10.0.0.0/7')],
  ['an except elsewhere', block('10.0.0.0/8', '11.0.0.0/16')],
  ['an except of the other family', block('10.0.0.0/8', '2001:db8::/64')],
  ['an except in IPv6', block('2001:db8::/32', '2001:db8:1::/48')],
  ['an except that is an address', block('10.0.0.0/8', '10.0.0.1')],
  ['an empty except', block('10.0.0.0/8', '')],
  ['a null except', block('10.0.0.0/8', null)],
  ['a port', ports({ port: 80 })],
  ['port 0', ports({ port: 0 })],
  ['port 65535', ports({ port: 65_535 })],
  ['port 65536', ports({ port: 65_536 })],
  ['a negative port', ports({ port: -1 })],
  ['a port with a fraction', ports({ port: 80.5 })],
  ['a port beyond 32 bits', ports({ port: 2 ** 31 })],
  ['a port that is true', ports({ port: true })],
  ['a named port', ports({ port: 'http' })],
  ['a number as text', ports({ port: '80' })],
  ['an empty port name', ports({ port: '' })],
  ['a port name of 15', ports({ port: long(15) })],
  ['a port name of 16', ports({ port: long(16) })],
  ['a port name in capitals', ports({ port: 'HTTP' })],
  ['a port name with two hyphens', ports({ port: 'a--b' })],
  ['a port name that ends with a hyphen', ports({ port: 'http-' })],
  ['a port name with an underscore', ports({ port: 'my_port' })],
  ['no port', ports({ protocol: 'UDP' })],
  ['SCTP', ports({ protocol: 'SCTP', port: 7 })],
  ['a protocol in small letters', ports({ protocol: 'tcp', port: 80 })],
  ['ICMP', ports({ protocol: 'ICMP' })],
  ['an empty protocol', ports({ protocol: '', port: 80 })],
  ['a null protocol', ports({ protocol: null, port: 80 })],
  ['a range', ports({ port: 80, endPort: 90 })],
  ['a range of one', ports({ port: 80, endPort: 80 })],
  ['a range backwards', ports({ port: 80, endPort: 79 })],
  ['a range beyond 65535', ports({ port: 80, endPort: 65_536 })],
  ['endPort 0', ports({ port: 80, endPort: 0 })],
  ['endPort alone', ports({ endPort: 90 })],
  ['endPort and a name', ports({ port: 'http', endPort: 90 })],
  ['endPort as text', ports({ port: 80, endPort: '90' })],
  ['a type that is unknown', { podSelector: {}, policyTypes: ['ingress'] }],
  ['the same type twice', { podSelector: {}, policyTypes: ['Ingress', 'Ingress'] }],
  ['three types', { podSelector: {}, policyTypes: ['Ingress', 'Egress', 'Ingress'] }],
  ['no types', { podSelector: {}, policyTypes: [] }],
  ['an empty type', { podSelector: {}, policyTypes: [''] }],
  ['types that leave a written section out', { podSelector: {}, policyTypes: ['Ingress'], egress: [{}] }],
  ['a label', labels({ app: 'web' })],
  ['a label with a prefix', labels({ 'app.kubernetes.io/name': 'web' })],
  ['an empty label value', labels({ app: '' })],
  ['a null label value', labels({ app: null })],
  ['a label value that is a number', labels({ app: 1 })],
  ['a label value with a space', labels({ app: 'my web' })],
  ['a label value of 63', labels({ app: long(63) })],
  ['a label value of 64', labels({ app: long(64) })],
  ['a label value that ends with a hyphen', labels({ app: 'web-' })],
  ['an empty label key', labels({ '': 'x' })],
  ['a label key with two slashes', labels({ 'a/b/c': 'x' })],
  ['a label key with an empty prefix', labels({ '/b': 'x' })],
  ['a label key with a prefix in capitals', labels({ 'Example.com/b': 'x' })],
  ['a label key of 64', labels({ [long(64)]: 'x' })],
  ['In', expression({ key: 'app', operator: 'In', values: ['a', 'b'] })],
  ['In without values', expression({ key: 'app', operator: 'In' })],
  ['NotIn with no values', expression({ key: 'app', operator: 'NotIn', values: [] })],
  ['In with a value that is none', expression({ key: 'app', operator: 'In', values: ['a b'] })],
  ['In with a null value', expression({ key: 'app', operator: 'In', values: [null] })],
  ['Exists', expression({ key: 'app', operator: 'Exists' })],
  ['Exists with values', expression({ key: 'app', operator: 'Exists', values: ['a'] })],
  ['DoesNotExist with values', expression({ key: 'app', operator: 'DoesNotExist', values: ['a'] })],
  ['an unknown operator', expression({ key: 'app', operator: 'Equals', values: ['a'] })],
  ['an operator in small letters', expression({ key: 'app', operator: 'exists' })],
  ['an expression without a key', expression({ operator: 'Exists' })],
  ['an expression without an operator', expression({ key: 'app' })],
  ['a null expression', expression(null)],
  ['an unknown field of an expression', expression({ key: 'app', operator: 'Exists', value: 'a' })],
  ['a name in capitals', {}, { metadata: { name: 'Web' } }],
  ['a name with dots', {}, { metadata: { name: 'web.v1' } }],
  ['a name of 254', {}, { metadata: { name: long(254) } }],
  ['a label of the object that is none', {}, { metadata: { name: 'x', labels: { app: 'a b' } } }],
  ['a label of the object that is a number', {}, { metadata: { name: 'x', labels: { app: 1 } } }],
  ['an annotation whose key is none', {}, { metadata: { name: 'x', annotations: { 'a b': 'x' } } }],
  ['an annotation whose key is in capitals', {}, { metadata: { name: 'x', annotations: { 'Example.com/B': 'x' } } }],
  ['an unknown field of metadata', {}, { metadata: { name: 'x', label: {} } }],
];

describe('a NetworkPolicy', () => {
  let kube: Kube;
  let namespace: string;
  beforeAll(async () => {
    kube = await useKube();
    namespace = await kube.namespace('netpol');
  });

  it.each(CASES)('with %s is judged as the API server judges it', async (_, spec, rest) => {
    const policy = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'x' }, spec, ...rest };
    const path = `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies?dryRun=All&fieldValidation=Strict`;
    const answer = await kube.request('POST', path, policy);
    expect([201, 400, 422]).toContain(answer.status);
    const { problems } = readCluster([JSON.parse(JSON.stringify(policy)) as ValueObject]);
    expect(
      problems.map(({ path: at, message }) => `${at} ${message}`),
      JSON.stringify(answer.body),
    ).toHaveLength(answer.status === 201 ? 0 : Math.max(1, problems.length));
  });
});
