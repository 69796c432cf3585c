// node .ci/summary.js STATUS REPORT...: prints "N passed, N failed" from vitest's JSON reports. Exits with 1 on any failure.
import { readFileSync } from 'node:fs';

const [status, ...files] = process.argv.slice(2);
let passed = 0;
let failed = 0;
for (const file of files) {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8'));
    passed += report.numPassedTests;
    // suites that failed without a failed test in them: they could not be loaded, or a hook failed
    const broken = report.testResults.filter(
      (suite) => suite.status === 'failed' && !suite.assertionResults.some((test) => test.status === 'failed'),
    );
    failed += report.numFailedTests + broken.length;
  } catch (error) {
    console.error(`no test report: ${error.message}`);
    failed += 1;
  }
}
// the run failed in a way that no test shows: the checks, a global setup, an error outside every test
if (status !== '0' && failed === 0) failed = 1;
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
