// check.js: counts and names what is checked; a script ends with finish(), whose last line is "N passed, N failed".
const assert = require('assert');
let passed = 0, failed = 0;
async function check(what, fn) {
  const begin = process.hrtime.bigint();
  try {
    const note = await fn();
    passed++;
    const ms = Number(process.hrtime.bigint() - begin) / 1e6;
    console.log(`ok   ${what} (${ms.toFixed(0)} ms${note ? ', ' + note : ''})`);
  } catch (error) {
    failed++;
    console.log(`FAIL ${what}\n     ${String(error.stack || error).split('\n').slice(0, 6).join('\n     ')}`);
  }
}
function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
// Expects a rejection with this gRPC code, and a text that names the culprit.
async function refuses(code, text, fn) {
  try {
    await fn();
  } catch (error) {
    assert.strictEqual(error.code, code, `code ${error.code}: ${error.message}`);
    if (text) assert.match(error.message, text);
    return;
  }
  assert.fail(`was accepted; expected code ${code}`);
}
// Runs fn over items, `width` at a time.
async function parallel(items, width, fn) {
  let next = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < items.length) await fn(items[next++]);
  }));
}
module.exports = { assert, check, finish, refuses, parallel };
