// Google's unmodified Bigtable client against the tablet layer: creates a table, writes, reads, scans, filters, increments, checks and
// mutates, and compares every answer with a map kept here.
const { Bigtable } = require('@google-cloud/bigtable');
const { assert, check, finish, refuses } = require('./check');

const bigtable = new Bigtable({ projectId: 'tables' });
const instance = bigtable.instance('local');
const table = instance.table(`t-${Date.now() % 1e9}`);
const keys = Array.from({ length: 2000 }, (_, i) => `row-${String(i).padStart(5, '0')}`);

async function main() {
  await check('an instance and a table with two families are made', async () => {
    const [exists] = await instance.exists().catch(() => [false]);
    if (!exists) {
      const [, operation] = await instance.create({ clusters: [{ id: 'local-c1', location: 'zone-a', nodes: 1 }], displayName: 'Local' });
      if (operation && operation.promise) await operation.promise();
    }
    await table.create({ families: [{ name: 'cf', rule: { versions: 3 } }, 'other'] });
    const [families] = await table.getFamilies();
    assert.deepStrictEqual(families.map(f => f.id).sort(), ['cf', 'other']);
    const [tables] = await instance.getTables();
    assert(tables.some(t => t.id === table.id));
    await refuses(6, /exist/i, () => table.create({ families: ['cf'] }));
  });

  await check('2,000 rows are written in batches and read back', async () => {
    for (let i = 0; i < keys.length; i += 500)
      await table.insert(keys.slice(i, i + 500).map((key, j) => ({
        key, data: { cf: { n: { value: String(i + j) }, twice: { value: String((i + j) * 2) } }, other: { tag: { value: 'x' } } },
      })));
    const [rows] = await table.getRows();
    assert.deepStrictEqual(rows.map(r => r.id), keys);
    rows.forEach((row, i) => {
      assert.strictEqual(row.data.cf.n[0].value, String(i));
      assert.strictEqual(row.data.cf.twice[0].value, String(i * 2));
    });
  });

  await check('point reads, ranges, limits and prefixes', async () => {
    const [row] = await table.row('row-00042').get();
    assert.strictEqual(row.data.cf.n[0].value, '42');
    const [range] = await table.getRows({ start: 'row-00100', end: 'row-00109' });
    assert.deepStrictEqual(range.map(r => r.id), keys.slice(100, 110));
    const [few] = await table.getRows({ start: 'row-01990', limit: 5 });
    assert.deepStrictEqual(few.map(r => r.id), keys.slice(1990, 1995));
    const [prefix] = await table.getRows({ prefix: 'row-0012' });
    assert.deepStrictEqual(prefix.map(r => r.id), keys.slice(120, 130));
    const [some] = await table.getRows({ keys: ['row-00007', 'row-01999', 'nothing'] });
    assert.deepStrictEqual(some.map(r => r.id), ['row-00007', 'row-01999']);
  });

  await check('filters choose families, columns and values', async () => {
    const [rows] = await table.getRows({ prefix: 'row-0000', filter: [{ family: 'cf' }, { column: 'n' }, { column: { cellLimit: 1 } }] });
    assert.strictEqual(rows.length, 10);
    for (const row of rows) assert.deepStrictEqual(Object.keys(row.data), ['cf']);
    for (const row of rows) assert.deepStrictEqual(Object.keys(row.data.cf), ['n']);
  });

  await check('versions are kept newest first, as many as the rule says', async () => {
    const row = table.row('versions');
    for (let i = 1; i <= 5; i++)
      await row.save({ cf: { v: { value: `v${i}`, timestamp: new Date(1700000000000 + i * 1000) } } });
    const [back] = await row.get();
    assert.deepStrictEqual(back.data.cf.v.map(c => c.value), ['v5', 'v4', 'v3']);
  });

  await check('increments and appends are atomic', async () => {
    const row = table.row('counter');
    await row.save({ cf: { n: { value: 5 } } });
    await Promise.all(Array.from({ length: 50 }, () => row.increment('cf:n', 2)));
    const [back] = await row.get();
    const number = back.data.cf.n[0].value;
    assert.strictEqual(Number(typeof number === 'number' ? number : Buffer.from(number, 'binary').readBigInt64BE()), 105);
  });

  await check('check and mutate takes the branch that matches', async () => {
    const row = table.row('checked');
    await row.save({ cf: { state: { value: 'open' } } });
    const [matched] = await row.filter([{ column: 'state' }, { value: 'open' }], {
      onMatch: [{ method: 'insert', data: { cf: { state: 'closed' } } }],
    });
    assert.strictEqual(matched, true);
    const [again] = await row.filter([{ column: { name: 'state', cellLimit: 1 } }, { value: 'open' }], {
      onNoMatch: [{ method: 'insert', data: { cf: { missed: 'yes' } } }],
    });
    assert.strictEqual(again, false);
    const [back] = await row.get();
    assert.strictEqual(back.data.cf.state[0].value, 'closed');
    assert.strictEqual(back.data.cf.missed[0].value, 'yes');
  });

  await check('a value of 6 MB comes back whole', async () => {
    const value = Buffer.alloc(6 << 20, 'strata');
    await table.row('big').save({ cf: { v: { value } } });
    const [back] = await table.row('big').get({ decode: false });
    assert(value.equals(Buffer.from(back.data.cf.v[0].value)));
  });

  await check('rows and families are deleted; bad requests name the culprit', async () => {
    await table.row('row-00000').delete();
    const [gone] = await table.row('row-00000').exists();
    assert.strictEqual(gone, false);
    await table.deleteRows('row-0001');
    const [rest] = await table.getRows({ prefix: 'row-0001' });
    assert.strictEqual(rest.length, 0);
    await refuses(5, /not found/i, () => instance.table('no-such-table').getRows());
    await table.row('x').save({ nofamily: { a: 'b' } }).then(
      () => assert.fail('accepted'),
      error => assert.match(JSON.stringify(error.errors || error.message), /family/i));
  });

  await check('the table is deleted', async () => {
    await table.delete();
    const [exists] = await table.exists();
    assert.strictEqual(exists, false);
  });
  finish();
}

main().catch(error => {
  console.log(error);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
