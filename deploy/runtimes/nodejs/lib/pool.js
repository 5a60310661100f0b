// The workers: started ahead, replaced when they end, retired after a time-out. A call is handed to a worker exactly once.
// Whatever happens to that worker afterwards, the call is never handed to another.
'use strict';

const { WorkerProcess } = require('./worker-process');

const REPLACE_DELAYS_MS = [0, 100, 500, 1000, 2000, 5000];

// No connection to a worker is free and too many callers wait already, or this one waited for too long.
class Full extends Error {}
// The caller went away while it waited.
class Left extends Error {}

class Pool {
  constructor(settings, env) {
    this.settings = settings;
    this.env = env;
    this.workers = new Set(); // those that may be given calls
    this.retired = new Set(); // those that finish the calls they have
    this.waiting = new Set();
    this.failures = 0;
    this.closing = false;
  }

  // Resolves when every worker has loaded the function.
  start() {
    return Promise.all(Array.from({ length: this.settings.workers }, () => this.add()));
  }

  // Resolves to a connection for one call. Rejects with Full or Left; the function was not called then.
  acquire(caller) {
    if (caller.destroyed) return Promise.reject(new Left());
    const worker = this.choose();
    if (worker) return Promise.resolve(this.lend(worker));
    if (this.closing || this.waiting.size >= this.settings.maxWaiting) return Promise.reject(new Full());
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(timer);
        caller.off('close', leave);
        this.waiting.delete(turn);
        settle(value);
      };
      const turn = { serve: (lent) => end(resolve, lent) };
      const leave = () => end(reject, new Left());
      const timer = setTimeout(() => end(reject, new Full()), this.settings.timeout * 1000);
      caller.once('close', leave);
      this.waiting.add(turn);
    });
  }

  // No more calls for a worker with a call that ran out of time (nobody knows whether it will ever end) or broke. The worker is
  // killed when its other calls have ended, so that none of them is disturbed.
  retire(worker) {
    if (worker.retired) return;
    worker.retired = true;
    this.workers.delete(worker);
    this.retired.add(worker);
    this.replace();
  }

  async close() {
    this.closing = true;
    const all = [...this.workers, ...this.retired];
    all.forEach((worker) => worker.kill());
    await Promise.all(all.map((worker) => worker.gone));
  }

  choose() {
    let best = null;
    for (const worker of this.workers) {
      if (worker.free.length > 0 && (best === null || worker.calls < best.calls)) best = worker;
    }
    return best;
  }

  lend(worker) {
    const agent = worker.take();
    return { worker, agent, give: () => this.give(worker, agent) };
  }

  give(worker, agent) {
    worker.give(agent);
    // A connection that broke is not made anew; a worker that lost half of them is.
    if (worker.links * 2 <= this.settings.concurrency) this.retire(worker);
    if (worker.retired && worker.calls === 0) worker.kill();
    this.serve();
  }

  serve() {
    for (const turn of this.waiting) {
      const worker = this.choose();
      if (!worker) return;
      turn.serve(this.lend(worker));
    }
  }

  async add() {
    const worker = new WorkerProcess(this.settings, this.env);
    this.retired.add(worker); // until it is ready
    worker.gone.then(() => {
      this.retired.delete(worker);
      if (this.workers.delete(worker)) this.replace();
    });
    await worker.ready;
    this.failures = 0;
    if (this.closing) return; // it is among those that `close` kills
    this.retired.delete(worker);
    this.workers.add(worker);
    this.serve();
  }

  replace() {
    if (this.closing) return;
    const delay = REPLACE_DELAYS_MS[Math.min(this.failures, REPLACE_DELAYS_MS.length - 1)];
    this.failures += 1;
    setTimeout(() => {
      if (this.closing) return;
      this.add().catch((error) => {
        console.error(`kubeless-runtime: cannot start a worker: ${error.message}`);
        this.replace();
      });
    }, delay).unref();
  }
}

module.exports = { Full, Left, Pool };
