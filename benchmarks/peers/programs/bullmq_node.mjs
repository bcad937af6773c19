// BullMQ on Node, by the same protocol as the Python programs.
import { createInterface } from "node:readline";
import IORedis from "ioredis";
import { Queue, Worker } from "bullmq";

const work = JSON.parse(process.argv[2]);
const base = { repo: "git@example.com:shop/api", sha: "9f8d111d8".repeat(4), pad: "" };
base.pad = "x".repeat(Math.max(0, work.payload_bytes - JSON.stringify(base).length));
const connect = () => new IORedis(work.url, { maxRetriesPerRequest: null });
const queue = new Queue("bench", { connection: connect() });
const opts = { removeOnComplete: true };

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

function answer(jobs, tookMs) {
  console.log(JSON.stringify({ jobs, took_s: tookMs / 1000, latencies_ms: [] }));
}

if (work.what === "drain") {
  await bulk();
  await waitForGo();
  let done = 0;
  let first = 0;
  const worker = new Worker(
    "bench",
    async () => {
      if (done === 0) first = performance.now();
      done += 1;
      if (done === work.jobs) {
        answer(done, performance.now() - first);
        process.exit(0);
      }
    },
    { connection: connect(), concurrency: work.concurrency },
  );
  worker.on("error", () => {});
} else {
  await queue.waitUntilReady();
  await waitForGo();
  const begin = performance.now();
  if (work.how === "bulk") {
    await bulk();
  } else {
    let left = work.jobs;
    const some = async () => {
      while (left-- > 0) await queue.add("job", base, opts);
    };
    await Promise.all(Array.from({ length: work.how === "concurrent" ? 50 : 1 }, some));
  }
  answer(work.jobs, performance.now() - begin);
  process.exit(0);
}
