import { describe, expect, it } from 'vitest';
import { createAddressRule, networkProblems } from './address-rule.ts';

// N-116: the same ranges that the network policy leaves out
const PRIVATE = `10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 127.0.0.1 0.0.0.0
  168.63.129.16 192.0.0.192 224.0.0.1 255.255.255.255 ::1 :: fc00::1 fd00:ec2::254 fe80::1 ff02::1 2002:7f00:1:: ::ffff:127.0.0.1
  ::ffff:169.254.169.254 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe`.split(/\s+/);
const PUBLIC = ['203.0.113.7', '8.8.8.8', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::8.8.8.8'];

describe('the addresses that webhooks may reach', () => {
  it.each(PRIVATE)('do not include %s', (address) => {
    expect(createAddressRule([])(address)).toBe(false);
  });

  it.each(PUBLIC)('include %s', (address) => {
    expect(createAddressRule([])(address)).toBe(true);
  });

  it('include what is allowed, and nothing next to it', () => {
    const mayReach = createAddressRule(['10.1.0.0/16', 'fd00:1::/32']);
    expect(['10.1.2.3', '::ffff:10.1.2.3', 'fd00:1::5'].map(mayReach)).toEqual([true, true, true]);
    expect(['10.2.0.1', 'fd00:2::5', '127.0.0.1', 'no address'].map(mayReach)).toEqual([false, false, false, false]);
  });

  it('do not include metadata services and link-local addresses by way of a wider network that is allowed', () => {
    const mayReach = createAddressRule(['0.0.0.0/0', '::/0']);
    const metadata = ['169.254.169.254', '169.254.0.1', '100.100.100.200', '168.63.129.16', '192.0.0.192'];
    const six = ['fd00:ec2::254', 'fd20:ce::254', 'fe80::1', '::ffff:169.254.169.254', '64:ff9b::a9fe:a9fe'];
    for (const address of [...metadata, ...six]) expect(mayReach(address), address).toBe(false);
    expect(['10.0.0.1', '100.100.100.201', '127.0.0.1', 'fd00::1', '8.8.8.8'].map(mayReach)).not.toContain(false);
    const named = createAddressRule(['169.254.169.254/32', '100.64.0.0/10']);
    expect(['169.254.169.254', '100.64.0.1'].map(named)).toEqual([true, true]);
    expect(['169.254.169.253', '100.100.100.200'].map(named)).toEqual([false, false]);
  });

  it('are named by networks of the form address/bits', () => {
    expect(networkProblems('x', ['10.0.0.0/8', '::/0', '1.2.3.4/32'])).toEqual([]);
    const wrong = ['10.0.0.0', '10.0.0.0/33', 'a/8', '::/129', '1.2.3.4/8/8', '1.2.3.4/'];
    expect(networkProblems('x', wrong)).toEqual(wrong.map((network) => `x: ${network} is not a network such as 10.1.0.0/16`));
  });
});
