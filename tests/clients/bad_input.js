// What no well-meaning client sends, to both front doors: each gets a clear error with the right code, no process dies, and nothing is half
// done. Raw bytes go over gRPC, so that no client library tidies them up first.
const grpc = require('@grpc/grpc-js');
const http = require('http');
const { Datastore } = require('@google-cloud/datastore');
const { execFileSync } = require('child_process');
const { assert, check, finish, refuses } = require('./check');

const address = name => process.env[name].replace(/^https?:\/\//, '');
const bytes = b => b;
const clientOf = host => new grpc.Client(host, grpc.credentials.createInsecure(), {
  'grpc.max_send_message_length': -1, 'grpc.max_receive_message_length': -1,
});
const datastoreDoor = clientOf(address('DATASTORE_EMULATOR_HOST'));
const bigtableDoor = clientOf(address('BIGTABLE_EMULATOR_HOST'));

function call(client, path, request) {
  return new Promise((resolve, reject) =>
    client.makeUnaryRequest(path, bytes, bytes, request, { deadline: Date.now() + 20000 }, (error, reply) => (error ? reject(error) : resolve(reply))));
}
function stream(client, path, request) {
  return new Promise((resolve, reject) => {
    const parts = [];
    client.makeServerStreamRequest(path, bytes, bytes, request, { deadline: Date.now() + 20000 })
      .on('data', part => parts.push(part)).on('error', reject).on('end', () => resolve(parts));
  });
}

// A few lines of protobuf's wire format.
const varint = n => {
  const out = [];
  for (n = BigInt(n); n > 127n; n >>= 7n) out.push(Number(n & 127n) | 128);
  return Buffer.from([...out, Number(n)]);
};
const field = (number, body) => Buffer.concat([varint((number << 3) | 2), varint(body.length), body]);
const number = (n, value) => Buffer.concat([varint(n << 3), varint(value)]);
const text = (n, value) => field(n, Buffer.from(value));

// google.datastore.v1: CommitRequest{project_id 8, mode 5, mutations 6}, Mutation{upsert 6}, Entity{key 1, properties 3}.
const key = name => Buffer.concat([field(1, text(2, 'bad')), field(2, Buffer.concat([text(1, 'Bad'), text(3, name)]))]);
const entity = (name, properties) => Buffer.concat([field(1, key(name)), ...properties.map(([k, v]) => field(3, Buffer.concat([field(1, Buffer.from(k)), field(2, v)])))]);
const commit = (...entities) => Buffer.concat([text(8, 'bad'), number(5, 2), ...entities.map(e => field(6, field(6, e)))]);
const COMMIT = '/google.datastore.v1.Datastore/Commit';
const string = value => text(17, value);

function rest(path, body, type = 'application/json', method = 'POST') {
  const [host, port] = address('DATASTORE_EMULATOR_HOST').split(':');
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port, path, method, headers: { 'content-type': type } }, reply => {
      const parts = [];
      reply.on('data', p => parts.push(p)).on('end', () => resolve({ code: reply.statusCode, body: Buffer.concat(parts).toString() }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

const strata = process.env.STRATA;
const processes = () => (strata ? execFileSync(strata, ['ps']).toString().trim().split('\n').slice(1).map(line => line.split(/\s+/)) : [])
  .map(([task, machine, pid]) => `${task} ${machine} ${pid}`);

async function main() {
  const before = processes();
  const datastore = new Datastore({ projectId: 'bad' });

  await check('bytes that are no message', async () => {
    await refuses(3, null, () => call(datastoreDoor, COMMIT, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff])));
    await refuses(3, null, () => call(datastoreDoor, COMMIT, Buffer.from([0x42, 0x7f, 0x61])));
    await refuses(3, null, () => call(bigtableDoor, '/google.bigtable.v2.Bigtable/MutateRow', Buffer.from([0x0a, 0xff, 0x01, 0x00])));
    for (let i = 0; i < 300; i++) {
      const junk = Buffer.from(Array.from({ length: (i * 37) % 200 }, (_, j) => (i * 7919 + j * 104729) & 255));
      await call(datastoreDoor, COMMIT, junk).then(() => {}, error => assert([3, 5, 12].includes(error.code), `${error.code} ${error.message}`));
      await stream(bigtableDoor, '/google.bigtable.v2.Bigtable/ReadRows', junk).then(() => {}, error => assert([3, 5, 12].includes(error.code), `${error.code} ${error.message}`));
    }
  });

  await check('nesting ten thousand deep', async () => {
    let value = string('x');
    for (let i = 0; i < 10000; i++) value = field(9, field(1, value)); // array_value{values}
    await refuses(3, null, () => call(datastoreDoor, COMMIT, commit(entity('deep', [['p', value]]))));
    let filter = number(17, 1);
    for (let i = 0; i < 10000; i++) filter = field(1, field(1, filter)); // chain{filters}
    await refuses(3, null, () => stream(bigtableDoor, '/google.bigtable.v2.Bigtable/ReadRows', Buffer.concat([text(1, 'projects/p/instances/local/tables/t'), field(3, filter)])));
  });

  await check('a request over the limit, and one just below it', async () => {
    const many = [];
    for (let i = 0; i < 12; i++) many.push(entity(`big${i}`, [['p', Buffer.concat([string('x'.repeat(1 << 20)), number(19, 1)])]]));
    await refuses(8, null, () => call(datastoreDoor, COMMIT, commit(...many)).catch(error => {
      if (error.code === 3) error.code = 8; // over the request limit: either is documented
      throw error;
    }));
    const nine = [];
    for (let i = 0; i < 9; i++) nine.push(entity(`nine${i}`, [['p', Buffer.concat([string('x'.repeat(1000000)), number(19, 1)])]]));
    await call(datastoreDoor, COMMIT, commit(...nine));
    const [back] = await datastore.get(datastore.key(['Bad', 'nine8']));
    assert.strictEqual(back.p.length, 1000000);
    const [half] = await datastore.get(datastore.key(['Bad', 'big0']));
    assert.strictEqual(half, undefined, 'nothing of the refused one is there');
  });

  await check('unknown methods and services are UNIMPLEMENTED, by name', async () => {
    await refuses(12, /NoSuchMethod/, () => call(datastoreDoor, '/google.datastore.v1.Datastore/NoSuchMethod', Buffer.alloc(0)));
    await refuses(12, /Nothing/, () => call(bigtableDoor, '/some.Nothing/Here', Buffer.alloc(0)));
  });

  await check('unknown fields are no error', async () => {
    await call(datastoreDoor, COMMIT, Buffer.concat([commit(entity('unknown', [['p', string('v')]])), text(900, 'later version')]));
    const [back] = await datastore.get(datastore.key(['Bad', 'unknown']));
    assert.strictEqual(back.p, 'v');
  });

  await check('strings that are not UTF-8, and NULs that are data', async () => {
    await refuses(3, /UTF-8/i, () => call(datastoreDoor, COMMIT, commit(entity('utf', [['p', field(17, Buffer.from([0xc3, 0x28]))]]))));
    await call(datastoreDoor, COMMIT, commit(entity('nul\0name', [['p', string('a\0b')]])));
    const [back] = await datastore.get(datastore.key(['Bad', 'nul\0name']));
    assert.strictEqual(back.p, 'a\0b');
    const [other] = await datastore.get(datastore.key(['Bad', 'nul']));
    assert.strictEqual(other, undefined);
  });

  await check('one bad entity among good ones: none is stored', async () => {
    await refuses(3, /1500 bytes/, () => call(datastoreDoor, COMMIT, commit(
      entity('good1', [['p', string('fine')]]), entity('bad1', [['p', string('x'.repeat(1501))]]), entity('good2', [['p', string('fine')]]))));
    for (const name of ['good1', 'bad1', 'good2']) {
      const [back] = await datastore.get(datastore.key(['Bad', name]));
      assert.strictEqual(back, undefined, name);
    }
    const [found] = await datastore.runQuery(datastore.createQuery('Bad').filter('p', '=', 'fine'));
    assert.strictEqual(found.length, 0, 'no index entry either');
  });

  await check('reserved names, empty names, wrong ids, values without a type', async () => {
    await refuses(3, /reserved/i, () => datastore.save({ key: datastore.key(['__secret__', 'a']), data: {} }));
    await refuses(3, /reserved/i, () => datastore.save({ key: datastore.key(['Bad', 'a']), data: { __p__: 1 } }));
    await refuses(3, null, () => call(datastoreDoor, COMMIT, commit(entity('novalue', [['p', Buffer.alloc(0)]]))));
    await refuses(3, null, () => call(datastoreDoor, '/google.datastore.v1.Datastore/Rollback', Buffer.concat([text(8, 'bad'), text(1, 'garbage')])));
  });

  await check('REST: malformed JSON, unknown fields, wrong methods, unknown paths', async () => {
    const bad = await rest('/v1/projects/bad:lookup', '{"keys": [');
    assert.strictEqual(bad.code, 400);
    assert.strictEqual(JSON.parse(bad.body).error.status, 'INVALID_ARGUMENT');
    assert.strictEqual((await rest('/v1/projects/bad:lookup', '{"nosuch": 1}')).code, 400);
    assert.strictEqual((await rest('/v1/nothing', '{}')).code, 404);
    const good = await rest('/v1/projects/bad:lookup', JSON.stringify({ keys: [{ path: [{ kind: 'Bad', name: 'unknown' }] }] }));
    assert.strictEqual(good.code, 200, good.body);
    assert.strictEqual(JSON.parse(good.body).found[0].entity.properties.p.stringValue, 'v');
  });

  await check('clients that vanish in the middle leave nothing behind', async () => {
    for (let i = 0; i < 50; i++) {
      const c = clientOf(address('DATASTORE_EMULATOR_HOST'));
      c.makeUnaryRequest(COMMIT, bytes, bytes, commit(entity(`gone${i}`, [['p', string('v')]])), { deadline: Date.now() + 1000 }, () => {});
      setTimeout(() => c.close(), i % 5);
    }
    await new Promise(resolve => setTimeout(resolve, 300));
    await datastore.save({ key: datastore.key(['Bad', 'after']), data: { ok: true } });
  });

  await check('no process has died of any of it', async () => {
    assert.deepStrictEqual(processes(), before);
  });
  finish();
}

main().catch(error => {
  console.log(error);
  console.log('0 passed, 1 failed');
  process.exit(1);
});
