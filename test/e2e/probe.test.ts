import { it } from 'vitest';
import { startProcess } from '../processes.ts';
import { testDatabase } from '../postgres.ts';
it('probe', async () => {
  for (const mode of ['none', 'request']) {
    const { url } = await testDatabase({ empty: true });
    const p = await startProcess('broker/main.ts', ['serve'], { DATABASE_URL: url, BROKKR__BROKER__LISTEN: '127.0.0.1:0', BROKKR__LOG__LEVEL: 'trace' });
    const address = (await p.line((line) => line.msg === 'broker serves'))['address'];
    if (mode === 'request') await (await fetch(`http://${address}/healthz`)).text();
    const t = performance.now();
    const killer = setTimeout(async () => { process.kill(p.pid, 'SIGUSR1'); }, 3000);
    console.log(mode, await p.stop(), performance.now() - t);
    clearTimeout(killer);
    console.log(p.log.slice(-12).map((l) => JSON.stringify(l)).join('\n'), p.text);
  }
}, 120000);
