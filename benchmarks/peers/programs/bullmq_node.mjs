// BullMQ on Node, by the same protocol as the Python programs. Node cannot map memory, so it shares none with others:
// the slots of a run are read and written as a file, seldom.
import { openSync, readSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import IORedis from "ioredis";
import { Queue, Worker } from "bullmq";

const work = JSON.parse(process.argv[process.argv.length - 1]);
const base = { repo: "git@example.com:shop/api", sha: "9f8d111d8".repeat(4), pad: "" };
base.pad = "x".repeat(Math.max(0, work.payload_bytes - JSON.stringify(base).length));
const connect = () => new IORedis(work.url, { maxRetriesPerRequest: null });
const queue = new Queue("bench", { connection: connect() });
const opts = { removeOnComplete: true };
const shared = openSync(work.shared, "r+");

function note(done) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(done));
  writeSync(shared, bytes, 0, 8, 8 * work.slot);
}

function slots() {
  const bytes = Buffer.alloc(8 * Math.max(2, work.processes));
  readSync(shared, bytes, 0, bytes.length, 0);
  return Array.from({ length: bytes.length / 8 }, (_, slot) => Number(bytes.readBigInt64LE(8 * slot)));
}

const total = () => slots().reduce((sum, done) => sum + done, 0);

async function bulk() {
  for (let first = 0; first < work.jobs; first += 500) {
    const count = Math.min(500, work.jobs - first);
    await queue.addBulk(Array.from({ length: count }, () => ({ name: "job", data: base, opts })));
  }
}

async function waitForGo() {
  console.log("ready");
  const lines = createInterface({ input: process.stdin });
  await new Promise((resolve) => lines.once("line", resolve));
  lines.close();
}

const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

function answer(jobs, tookMs, latencies = []) {
  console.log(JSON.stringify({ jobs, took_s: Math.max(1e-9, tookMs / 1000), latencies_ms: latencies }));
}

async function serve() {
  const waits = [];
  const wanted = work.jobs * work.processes + (work.what === "serve" ? 1 : 0);
  let [done, first, last, answered] = [0, 0, 0, false];

  function finish() {
    if (!answered) answer(done - (work.what === "serve" ? 1 : 0), last - first, waits);
    answered = true;
    process.exit(0);
  }

  async function gate() {
    note(1);
    const until = nowMs() + 5000;
    while (slots().slice(0, work.processes).some((one) => one === 0) && nowMs() < until) await sleep(2);
    first = nowMs();
    setInterval(() => {
      if (work.processes > 1) note(done);
      if (work.cut_s && nowMs() > first + work.cut_s * 1000) {
        last = nowMs();
        finish();
      }
      if (work.processes > 1 && total() >= wanted) finish();
    }, 20);
  }

  let opened = null;
  const worker = new Worker(
    "bench",
    async (job) => {
      if (opened === null) opened = gate();
      if (first === 0) await opened;
      done += 1;
      last = nowMs();
      if (work.what === "serve" && done > 1) waits.push(last - job.data.sent_ms);
      if (done === wanted) finish();
    },
    { connection: connect(), concurrency: work.concurrency },
  );
  worker.on("error", () => {});
}

async function knock() {
  await queue.add("job", { sent_ms: nowMs() }, opts);
  while (total() === 0) await sleep(5);
  for (let number = 0; number < work.jobs; number++) {
    await sleep(2 + 8 * Math.random());
    await queue.add("job", { sent_ms: nowMs() }, opts);
  }
}

await queue.waitUntilReady();
if (work.what === "drain" || work.what === "serve") {
  if (work.what === "drain") await bulk();
  await waitForGo();
  await serve();
} else {
  await waitForGo();
  const begin = nowMs();
  if (work.what === "knock") {
    await knock();
  } else if (work.how === "bulk") {
    await bulk();
  } else {
    let left = work.jobs;
    const some = async () => {
      while (left-- > 0) await queue.add("job", base, opts);
    };
    await Promise.all(Array.from({ length: work.how === "concurrent" ? 50 : 1 }, some));
  }
  answer(work.jobs, nowMs() - begin);
  process.exit(0);
}
