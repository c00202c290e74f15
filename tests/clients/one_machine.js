// A cell of one machine keeps everything on that machine's disk: what it acknowledged is there after kill -9 of all its processes. When
// machines are added, what it holds gets its three copies, and `strata status` says when.
const { Datastore } = require('@google-cloud/datastore');
const { execFile } = require('child_process');
const { promisify } = require('util');
const { assert, check, finish, parallel } = require('./check');

// Beside this program, which hears meanwhile that its connections end.
const strata = async (...args) => (await promisify(execFile)(process.env.STRATA, args)).stdout;
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const datastore = new Datastore({ projectId: 'one-machine' });
const COUNT = 300;

async function write(kind) {
  await parallel(Array.from({ length: COUNT }, (_, i) => i), 8, async i => {
    for (let tries = 0; ; tries++) {
      try {
        return await datastore.save({ key: datastore.key([kind, `e${i}`]), data: { i, text: `${kind} ${i}` } });
      } catch (error) { // an upsert may be repeated
        assert(tries < 50 && [4, 8, 10, 14].includes(error.code), `save: ${error.code} ${error.message}`);
        await sleep(100);
      }
    }
  });
}

async function verify(...kinds) {
  for (const kind of kinds) {
    const [rows] = await datastore.runQuery(datastore.createQuery(kind));
    assert.strictEqual(rows.length, COUNT);
    for (const row of rows) assert.strictEqual(row.text, `${kind} ${row.i}`);
  }
}

// The copies that full blocks have and want: "blocks: 6 of 6 copies ...".
async function copies() {
  const found = /^blocks: (\d+) of (\d+) copies.*$/m.exec(await strata('status'));
  return found ? { held: Number(found[1]), wanted: Number(found[2]), text: found[0] } : { text: 'nobody says' };
}

async function main() {
  await check('it is healthy, and says what waits for more machines', async () => {
    const status = await strata('status'); // fails unless healthy
    assert.match(status, /9 of 9 tasks healthy, 2 wait for more machines/);
  });
  await check('it takes writes', () => write('Before'));
  for (let round = 0; round < 2; round++)
    await check('kill -9 of everything, up again: all is there', async () => {
      await strata('down', '--kill');
      await strata('up');
      await verify('Before');
    });
  await check('two machines more: everything has three copies', async () => {
    await strata('up', '--machines', '3');
    await write('After');
    await strata('down'); // ends the blocks that were begun on one server
    await strata('up');
    const begin = Date.now();
    let now = await copies();
    for (; !(now.wanted >= 3 && now.wanted % 3 === 0 && now.held === now.wanted && !/fewer/.test(now.text)); now = await copies()) {
      assert(Date.now() - begin < 60000, now.text);
      await sleep(200);
    }
    await verify('Before', 'After');
    return now.text;
  });
  finish();
}

main().catch(error => {
  console.log(error);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
