import { describe, expect, it } from 'vitest';
import { createAddressRule, isNetwork } from './addresses.ts';

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

  it('are networks of the form address/bits', () => {
    expect(['10.0.0.0/8', '::/0', '1.2.3.4/32'].map(isNetwork)).toEqual([true, true, true]);
    expect(['10.0.0.0', '10.0.0.0/33', 'a/8', '::/129', '1.2.3.4/8/8', '1.2.3.4/'].map(isNetwork)).not.toContain(true);
  });
});
