// compatible.js CHECKER: tools/check-proto-compatible on protocols broken on purpose: it must find each kind of break, and name it,
// or a release would quietly cut off the programs of the last one; and it must let pass what only adds.
'use strict';
const fs = require('fs');
const os = require('os');
const path = require('path');
const { spawnSync } = require('child_process');

const checker = process.argv[2];
const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'compatible-'));
const before = `syntax = "proto3";
package strata.demo.v1;
message Row {
  reserved 9, 20 to 29;
  reserved "old";
  string name = 1;
  int64 count = 2;
  repeated bytes parts = 3;
  optional int32 maybe = 4;
  oneof kind { Row row = 5; string text = 6; }
  map<string, int32> sizes = 7;
  Color color = 8;
  message Inner { bool on = 1; }
}
enum Color { NONE = 0; RED = 1; BLUE = 2; }
message Empty {}
service Demo {
  rpc Get(Row) returns (Row) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Watch(Row) returns (stream Row);
}
service Other { rpc Do(Empty) returns (Empty); }
`;
// [what, text before, text instead, a word of the complaint; null: none]
const cases = [
  ['nothing', '', '', null],
  ['a field added', 'Color color = 8;', 'Color color = 8; string more = 10;', null],
  ['a message, enum value, method, service added', 'service Other {', 'message New {} service Third {} service Other { rpc More(New) returns (New);', null],
  ['an enum value added', 'BLUE = 2;', 'BLUE = 2; GREEN = 3;', null],
  ['a field removed and reserved', 'reserved "old";\n  string name = 1;', 'reserved "old", "name"; reserved 1;', null],
  ['an enum value removed and reserved', 'BLUE = 2;', 'reserved 2; reserved "BLUE";', null],
  ['a method that may be repeated now', 'rpc Watch(Row) returns (stream Row);', 'rpc Watch(Row) returns (stream Row) { option idempotency_level = IDEMPOTENT; }', null],
  ['comments and order', '  string name = 1;\n  int64 count = 2;', '  // a count\n  int64 count = 2;\n  string name = 1;', null],
  ['a field removed', '  string name = 1;\n', '', 'Row.name: field 1 is gone, and its number is not reserved'],
  ['a field removed, its number reserved alone', '  string name = 1;\n', '  reserved 1;\n', 'its name is not reserved'],
  ['a field renamed', 'int64 count = 2', 'int64 number = 2', 'field 2 is named number now'],
  ['a field renumbered', 'int64 count = 2', 'int64 count = 12', 'number 2 is 12 now'],
  ['another type', 'int64 count', 'int32 count', 'type was TYPE_INT64, is TYPE_INT32'],
  ['another message', 'Row row = 5', 'Inner row = 5', 'type_name was .strata.demo.v1.Row'],
  ['another label', 'repeated bytes parts', 'bytes parts', 'label was LABEL_REPEATED'],
  ['no presence any more', 'optional int32 maybe', 'int32 maybe', 'proto3_optional was true'],
  ['out of its oneof', 'string text = 6; }', '} string text = 6;', 'oneof was kind, is none'],
  ['another map', 'map<string, int32>', 'map<string, int64>', 'Row.SizesEntry.value: type was TYPE_INT32'],
  ['a reserved number used', 'reserved 9, 20 to 29;', 'reserved 20 to 29; string nine = 9;', 'reserved 9 to 9 is not reserved any more'],
  ['a reserved range cut', '20 to 29', '20 to 25', 'reserved 20 to 29'],
  ['a reserved name used', 'reserved "old";', 'string old = 30;', 'reserved name old'],
  ['a message removed', '  message Inner { bool on = 1; }\n', '', 'Row.Inner: the message is gone'],
  ['an enum value removed', ' BLUE = 2;', '', 'Color.BLUE: value 2 is gone'],
  ['an enum value renamed', 'BLUE = 2', 'GREEN = 2', 'value 2 is named GREEN now'],
  ['an enum value renumbered', 'BLUE = 2', 'BLUE = 3', 'Color.BLUE: number 2 is 3 now'],
  ['an enum removed', 'enum Color { NONE = 0; RED = 1; BLUE = 2; }', 'enum Shade { NONE = 0; RED = 1; BLUE = 2; }', 'Color: the enum is gone', ['Color color', 'Shade color']],
  ['a method removed', '  rpc Watch(Row) returns (stream Row);\n', '', 'Demo.Watch: the method is gone'],
  ['a method of another type', 'rpc Get(Row) returns (Row)', 'rpc Get(Empty) returns (Row)', 'input_type was .strata.demo.v1.Row'],
  ['another reply', 'rpc Get(Row) returns (Row)', 'rpc Get(Row) returns (Empty)', 'output_type'],
  ['no stream any more', 'returns (stream Row)', 'returns (Row)', 'server_streaming was true'],
  ['a stream of requests', 'rpc Watch(Row)', 'rpc Watch(stream Row)', 'client_streaming was false'],
  ['it may not be repeated any more', '{ option idempotency_level = NO_SIDE_EFFECTS; }', '{ option idempotency_level = IDEMPOTENT; }', 'clients repeat it'],
  ['a service removed', 'service Other { rpc Do(Empty) returns (Empty); }', '', 'Other: the service is gone'],
  ['another package', 'package strata.demo.v1;', 'package strata.demo.v2;', 'strata.demo.v1.Row: the message is gone'],
];

function tree(name, text) {
  const dir = path.join(tmp, name);
  fs.mkdirSync(path.join(dir, 'strata/demo/v1'), { recursive: true });
  fs.writeFileSync(path.join(dir, 'strata/demo/v1/demo.proto'), text);
  return dir;
}
const run = (...args) => spawnSync(checker, args, { encoding: 'utf8' });

let failed = 0;
const base = tree('base', before);
cases.forEach(([what, from, to, word, also], i) => {
  if (from && !before.includes(from)) throw new Error(`${what}: the text to replace is not there`);
  let text = from ? before.replace(from, to) : before;
  if (also) text = text.replace(also[0], also[1]);
  const got = run(base, '--proto', tree(`case${i}`, text));
  const good = word ? got.status === 1 && got.stdout.includes(word) : got.status === 0;
  if (good) return;
  failed++;
  console.log(`FAILED: ${what}: exit ${got.status}, wanted ${word || 'no complaint'}\n${got.stdout}${got.stderr}`);
});
for (const bad of [path.join(tmp, 'nowhere'), tree('unreadable', 'syntax = "proto3"; message {')]) {
  const got = run(bad, '--proto', base);
  if (got.status === 2 && got.stderr) continue;
  failed++;
  console.log(`FAILED: base ${bad}: exit ${got.status}, wanted 2`);
}
fs.rmSync(tmp, { recursive: true });
console.log(`${cases.length + 2} cases, ${failed} failed`);
process.exit(failed ? 1 : 0);
