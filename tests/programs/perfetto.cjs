// What Perfetto finds in a trace: `node perfetto.cjs FOLDER TRACE SQL...` prints the rows of each as JSON.
//
// FOLDER holds Perfetto's user interface. What reads traces there is WebAssembly in a web worker,
// which takes messages of protobuf (trace_processor.proto) at a port and answers there.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [folder, trace, ...questions] = process.argv.slice(2);
const { stdout, stderr, exit } = process;

// Protobuf, as much of it as that takes.

const varint = (n) => (n < 128 ? [n] : [(n % 128) | 128, ...varint(Math.floor(n / 128))]);
const number = (field, n) => Buffer.from([...varint(field * 8), ...varint(n)]);
const bytes = (field, data) =>
  Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(data.length)]), data]);

function readVarint(data, at) {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n) {
    const byte = data[at++];
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return [Number(BigInt.asIntN(64, value)), at];
  }
}

function readVarints(data) {
  const found = [];
  for (let at = 0, value; at < data.length; found.push(value)) [value, at] = readVarint(data, at);
  return found;
}

function* fields(data) {
  let at = 0;
  while (at < data.length) {
    let key, value;
    [key, at] = readVarint(data, at);
    [value, at] = key % 8 === 1 ? [8, at] : key % 8 === 5 ? [4, at] : readVarint(data, at);
    if (key % 8 !== 0) value = data.subarray(at, (at += value));
    yield [key >> 3, value];
  }
}

// Questions and answers.

const APPEND = 1, FINALIZE = 2, QUERY = 3;
let names = [], cells = [];
const port = { onmessage: null, postMessage: take };
let asked = 0;

function ask(request, ...rest) {
  const message = Buffer.concat([number(1, asked++), number(2, request), ...rest]);
  port.onmessage({ data: new Uint8Array(bytes(1, message)) });
}

function take(answer) {
  for (const [, message] of fields(Buffer.from(answer)))
    for (const [field, value] of fields(message)) {
      if (field === 5) throw new Error(String(value));
      if (field === 201) takeOutcome(value);
      if (field === 203) takeResult(value);
    }
}

function takeOutcome(outcome) {
  for (const [field, value] of fields(outcome)) if (field === 2) throw new Error(String(value));
}

function takeResult(result) {
  for (const [field, value] of fields(result)) {
    if (field === 1) names.push(String(value));
    if (field === 2 && value.length) throw new Error(String(value));
    if (field === 3) takeCells(value);
  }
}

function takeCells(batch) {
  const found = Object.fromEntries(fields(batch));
  const integers = readVarints(found[2] ?? []);
  const floats = found[3] ?? Buffer.alloc(0);
  const texts = String(found[5] ?? "").split("\0");
  let at = -8;
  const read = [, () => null, () => integers.shift(), () => floats.readDoubleLE((at += 8)), () => texts.shift()];
  for (const kind of found[1] ?? []) cells.push(read[kind]());
}

// A web worker, as Perfetto wants it.

class XMLHttpRequest {
  open(_method, name) {
    this.name = name;
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(path.join(folder, this.name))).buffer;
  }
}

console.log = console.warn = () => {};
const worker = { XMLHttpRequest, WorkerGlobalScope: Object, location: { href: "" }, process: undefined };
Object.assign(globalThis, { self: globalThis, ...worker });
vm.runInThisContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));
setTimeout(() => {
  try {
    stdout.write(JSON.stringify(look()));
  } catch (error) {
    stderr.write(`${error.message}\n`);
    exit(1);
  }
}, 0);

function look() {
  self.onmessage({ data: port });
  ask(APPEND, bytes(101, fs.readFileSync(trace)));
  ask(FINALIZE);
  return questions.map((sql) => {
    names = [];
    cells = [];
    ask(QUERY, bytes(103, bytes(1, Buffer.from(sql))));
    const rows = [];
    while (cells.length) rows.push(cells.splice(0, names.length));
    return rows;
  });
}
