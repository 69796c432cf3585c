import { it } from 'vitest';
import { startProcess } from '../processes.ts';
import { testDatabase } from '../postgres.ts';
it('probe', async () => {
    const { url } = await testDatabase({ empty: true });
    const p = await startProcess('broker/main-debug.ts', ['serve'], { DATABASE_URL: url, NODE_OPTIONS: '--import=/tmp/dbg.mjs', BROKKR__BROKER__LISTEN: '127.0.0.1:0', BROKKR__LOG__LEVEL: 'trace' });
    const address = (await p.line((line) => line.msg === 'broker serves'))['address'];
    const t = performance.now();
    setTimeout(async () => { process.kill(p.pid, 'SIGUSR2'); }, 4000);
    setTimeout(async () => { process.kill(p.pid, 'SIGKILL'); }, 6000);
    console.log(address, await p.stop(), performance.now() - t);
    console.log(p.log.slice(-12).map((l) => JSON.stringify(l)).join('\n'), p.text);
}, 120000);
