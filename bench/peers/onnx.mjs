// Embeds records with ONNX Runtime on the CPU and prints, as one line of JSON, how fast.
//
//   node onnx.mjs --onnx FILE.onnx --kind esm2|dnabert-s --input FILE [--dtype fp32] [--threads 2] [--rounds 3]
//       [--out FILE.f32] [--step]
//
// The model was written by export.py or, for --dtype int8, by int8.py. The input FILE is a FASTA of proteins (ESM-2
// only, gzip or not), or has the token ids of one record on each line, as `ours tokens` writes them. The first pass
// warms up and is not timed; its embeddings are written to --out. With --step the program prints `ready` after that
// pass. It then runs a round for each line of standard input, and prints a line after the round, until the input ends.
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import ort from 'onnxruntime-node';

const ALPHABET = 'LAGVSERTIDPKQNFYMHWCXBUZO.-'; // the letters with the token ids 4, 5, …
const [CLS, EOS, UNK] = [0, 2, 3];
const LONGEST_PROTEIN = 1022; // in residues; longer proteins are truncated
// pad is the token id of padding; special is the number of tokens at each end that are not in the mean.
const KINDS = { 'esm2': { pad: 1, special: 1 }, 'dnabert-s': { pad: 3, special: 0 } };

const { values: args } = parseArgs({
  options: {
    onnx: { type: 'string' },
    kind: { type: 'string' },
    dtype: { type: 'string', default: 'fp32' }, // a label for the table
    input: { type: 'string' },
    threads: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '4096' }, // in a batch, including padding
    rounds: { type: 'string', default: '3' },
    out: { type: 'string' },
    step: { type: 'boolean', default: false },
  },
});
const kind = KINDS[args.kind];
if (!args.onnx || !args.input || !kind) {
  console.error('usage: node onnx.mjs --onnx FILE.onnx --kind esm2|dnabert-s --input FILE [--threads N] [--tokens N] [--rounds N] [--out FILE] [--step]');
  process.exit(64);
}

function proteinTokens(sequence) {
  const residues = sequence.toUpperCase().replace(/\*$/, '').slice(0, LONGEST_PROTEIN);
  return [CLS, ...Array.from(residues, (letter) => { const i = ALPHABET.indexOf(letter); return i < 0 ? UNK : i + 4; }), EOS];
}

function readRecords(path) {
  let bytes = readFileSync(path);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) bytes = gunzipSync(bytes);
  const text = bytes.toString('latin1');
  if (!text.startsWith('>')) return text.trimEnd().split('\n').map((line) => line.trim().split(/\s+/).map(Number));
  if (args.kind !== 'esm2') throw new Error(`${path} is FASTA: only proteins are tokenized here, give token ids`);
  return text.split(/^>/m).slice(1).map((record) => proteinTokens(record.replace(/^.*/, '').replace(/\s+/g, '')));
}

/** Returns batches of records sorted by length, each of at most the given number of tokens, including padding. */
function paddedBatches(records, tokens) {
  const order = records.map((_, i) => i).sort((a, b) => records[a].length - records[b].length);
  const groups = [[]];
  for (const i of order) {
    const last = groups.at(-1);
    if (last.length && (last.length + 1) * records[i].length > tokens) groups.push([i]);
    else last.push(i);
  }
  return groups.map((rows) => {
    const width = Math.max(...rows.map((i) => records[i].length));
    const ids = new BigInt64Array(rows.length * width).fill(BigInt(kind.pad));
    const mask = new BigInt64Array(rows.length * width);
    rows.forEach((record, row) => records[record].forEach((id, i) => {
      ids[row * width + i] = BigInt(id);
      mask[row * width + i] = 1n;
    }));
    const dims = [rows.length, width];
    return { rows, width, feeds: { ids: new ort.Tensor('int64', ids, dims), mask: new ort.Tensor('int64', mask, dims) } };
  });
}

const records = readRecords(args.input);
const tokens = records.reduce((sum, r) => sum + r.length, 0);
const batches = paddedBatches(records, Number(args.tokens));
const session = await ort.InferenceSession.create(args.onnx, {
  executionProviders: ['cpu'],
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  intraOpNumThreads: Number(args.threads),
  interOpNumThreads: 1,
});

/** Returns the mean state of every record, in the order of the records. */
async function embed() {
  let dim, pooled;
  for (const { rows, width, feeds } of batches) {
    const { states } = await session.run(feeds);
    dim = states.dims[2];
    pooled ??= new Float32Array(records.length * dim);
    rows.forEach((record, row) => {
      const sum = new Float64Array(dim);
      const [first, end] = [kind.special, records[record].length - kind.special];
      for (let i = first; i < end; i++) {
        const at = (row * width + i) * dim;
        for (let j = 0; j < dim; j++) sum[j] += states.data[at + j];
      }
      for (let j = 0; j < dim; j++) pooled[record * dim + j] = sum[j] / (end - first);
    });
    states.dispose();
  }
  return { dim, pooled };
}

const seconds = [];
async function measure() {
  const start = performance.now();
  await embed();
  seconds.push((performance.now() - start) / 1000);
}

const { dim, pooled } = await embed();
if (args.out) writeFileSync(args.out, pooled);
if (args.step) {
  console.log('ready');
  for await (const _ of createInterface({ input: process.stdin })) {
    await measure();
    console.log(`round ${seconds.at(-1).toFixed(3)}`);
  }
} else {
  for (let i = 0; i < Number(args.rounds); i++) await measure();
}

const sorted = [...seconds].sort((a, b) => a - b);
const middle = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
console.log(JSON.stringify({
  runner: 'ONNX Runtime',
  version: ort.env.versions.node,
  how: args.dtype === 'int8' ? 'dynamic, a scale for each column (int8.py)' : 'exported by export.py, all graph optimizations',
  dtype: args.dtype,
  model: args.onnx,
  threads: Number(args.threads),
  records: records.length,
  tokens,
  padded: batches.reduce((sum, b) => sum + b.rows.length * b.width, 0),
  dim,
  seconds,
  ...(seconds.length && { best: tokens / sorted[0], median: tokens / middle }),
  ...(args.out && { embeddings: args.out }),
}));
