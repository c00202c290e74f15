// While acknowledged writes run, each kind of process is killed with -9 in turn, the leading masters are killed and paused, then a
// whole machine that leads everything goes, then everything: after each, service comes back by itself within 10 s, and every
// acknowledged write is read back, none twice.
const { Datastore } = require('@google-cloud/datastore');
const { execFileSync } = require('child_process');
const { assert, check, finish } = require('./check');

const strata = (...args) => execFileSync(process.env.STRATA, args, { encoding: 'utf8' });
// Those that are no tasks: a machine's own processes.
const killProcess = pattern => execFileSync('pkill', ['-9', '-f', `${pattern}.*${process.env.STRATA_DIR}`]);
// Who leads the clustermasters or blockmasters: the row's first word and its machine. Between two leaders there is none for a moment.
async function leader(group) {
  for (const begin = Date.now();; await sleep(50)) {
    const rows = strata('masters').split('\n').map(line => line.trim().split(/\s+/));
    const start = rows.findIndex(row => row[0] === group);
    const row = rows.slice(start + 1).find(cells => cells[2] === 'leader' || cells[0] === '');
    if (row && row[2] === 'leader') return { task: row[0].split('/').slice(-2).join('/'), machine: row[1] };
    assert(Date.now() - begin < 10000, `somebody leads:\n${rows.map(cells => cells.join(' ')).join('\n')}`);
  }
}
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const datastore = new Datastore({ projectId: 'survival' });
const LISTS = 8, run = Date.now().toString(36); // a run has kinds of its own

const acked = new Set();      // ids of inserts that were acknowledged
const appended = new Map();   // list -> ids whose append was acknowledged
const maybe = new Map();      // list -> ids whose outcome is unknown
let running = true, lastSuccess = Date.now(), longest = 0, serial = 0;

function succeeded() {
  const now = Date.now();
  longest = Math.max(longest, now - lastSuccess);
  lastSuccess = now;
}

// Inserts fresh entities; an unknown outcome is settled by inserting again: ALREADY_EXISTS means the first was done.
async function inserter() {
  while (running) {
    const id = `w${++serial}`, key = datastore.key([`Written-${run}`, id]);
    for (let tries = 0; running || tries; tries++) {
      try {
        await datastore.insert({ key, data: { id } });
      } catch (error) {
        if (!(error.code === 6 && tries > 0)) {
          assert([1, 4, 8, 10, 14].includes(error.code), `insert: ${error.code} ${error.message}`);
          if (!running) break;
          await sleep(20);
          continue;
        }
      }
      acked.add(id);
      succeeded();
      break;
    }
  }
}

// Appends ids to a list in a transaction: the list must hold each acknowledged id exactly once.
async function appender(list) {
  const key = datastore.key([`List-${run}`, `l${list}`]);
  appended.set(list, []);
  maybe.set(list, new Set());
  while (running) {
    const id = `a${++serial}`;
    const transaction = datastore.transaction();
    let committing = false;
    try {
      await transaction.run();
      const [old] = await transaction.get(key);
      transaction.save({ key, data: { ids: [...(old ? old.ids : []), id] }, excludeFromIndexes: ['ids[]'] });
      committing = true;
      await transaction.commit();
      appended.get(list).push(id);
      succeeded();
    } catch (error) {
      assert([1, 3, 4, 8, 10, 14].includes(error.code), `append: ${error.code} ${error.message}`);
      if (committing && error.code !== 10) maybe.get(list).add(id);
      await sleep(20);
    }
    await sleep(15);
  }
}

async function verify() {
  const seen = new Set();
  let query = datastore.createQuery(`Written-${run}`).select('__key__');
  const [keys] = await datastore.runQuery(query);
  for (const entity of keys) {
    const id = entity[datastore.KEY].name;
    assert(!seen.has(id), `${id} is there twice`);
    seen.add(id);
  }
  for (const id of acked) assert(seen.has(id), `acknowledged ${id} is lost`);
  for (let list = 0; list < LISTS; list++) {
    const [entity] = await datastore.get(datastore.key([`List-${run}`, `l${list}`]));
    const ids = entity ? entity.ids : [], set = new Set(ids);
    assert.strictEqual(set.size, ids.length, `list ${list} holds an id twice`);
    for (const id of appended.get(list)) assert(set.has(id), `acknowledged ${id} is lost from list ${list}`);
    for (const id of ids) assert(appended.get(list).includes(id) || maybe.get(list).has(id), `${id} in list ${list} was never written`);
  }
}

async function disturb(what, action) {
  await check(what, async () => {
    longest = 0;
    lastSuccess = Date.now();
    const before = acked.size;
    await action();
    const killed = Date.now();
    await sleep(2500);
    while ((acked.size < before + 50 || Date.now() - lastSuccess > 500) && Date.now() - killed < 30000) await sleep(50);
    longest = Math.max(longest, Date.now() - lastSuccess);
    const gap = longest;
    assert(acked.size > before + 20, 'writes go on');
    assert(gap <= 10000, `service was away for ${gap} ms`);
    return `away for ${gap} ms, ${acked.size} acknowledged so far`;
  });
}

async function main() {
  let failure;
  const workers = [];
  const guard = promise => promise.catch(error => { failure = failure || error; running = false; console.log(String(error)); });
  for (let i = 0; i < 8; i++) workers.push(guard(inserter()));
  for (let i = 0; i < LISTS; i++) workers.push(guard(appender(i)));
  for (const begin = Date.now(); acked.size < 200 && Date.now() - begin < 20000; ) await sleep(50);
  assert(acked.size >= 200, `the load runs: ${acked.size}`);
  const tasks = ['queryserver/0', 'txserver/0', 'txserver/1', 'tabletserver/0', 'tabletserver/1', 'tabletserver/2', 'tabletmaster/0',
    'blockserver/0', 'blockserver/1', 'blockserver/2'];
  for (const task of tasks) await disturb(`kill -9 ${task}`, () => strata('kill', task, '-9'));
  await disturb('kill -9 the leading blockmaster', async () => strata('kill', (await leader('BLOCKMASTER')).task, '-9'));
  const paused = (await leader('BLOCKMASTER')).task;
  await disturb('the leading blockmaster is paused', () => strata('kill', paused, '-STOP'));
  strata('kill', paused, '-CONT');
  await disturb('kill -9 the leading clustermaster', async () => strata('kill', `master:${(await leader('CLUSTERMASTER')).machine}`, '-9'));
  const stopped = (await leader('CLUSTERMASTER')).machine;
  await disturb('the leading clustermaster is paused', () => strata('kill', `master:${stopped}`, '-STOP'));
  strata('kill', `master:${stopped}`, '-CONT');
  await disturb('kill -9 all clustermasters', () => killProcess('clustermaster'));
  await disturb('kill -9 a clusteragent', () => killProcess('clusteragent --machine=m2'));
  await sleep(1000);
  strata('masters', 'move-lead', 'clustermaster', 'm2');
  strata('masters', 'move-lead', 'blockmaster', 'm2');
  await disturb('a whole machine is lost, which leads all masters', () => strata('machine', 'stop', 'm2', '-9'));
  await check('the cell answers without it', async () => {
    const leaders = [(await leader('CLUSTERMASTER')).machine, (await leader('BLOCKMASTER')).machine];
    assert(!leaders.includes('m2'), `m2 is gone: ${leaders}`);
    return `led from ${leaders.join(' and ')}`;
  });
  strata('machine', 'start', 'm2');
  await sleep(1000);
  running = false;
  await Promise.all(workers);
  await check('no write failed in a way it must not', async () => { if (failure) throw failure; });
  await check('every acknowledged write is there, none twice', verify);
  await check('the whole cell is killed and started again: all is there', async () => {
    strata('down', '--kill');
    const begin = Date.now();
    strata('up');
    await verify();
    return `${acked.size} writes, ${Date.now() - begin} ms to be back`;
  });
  finish();
}

main().catch(error => {
  console.log(error);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
