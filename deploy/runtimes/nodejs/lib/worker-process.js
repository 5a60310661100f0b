// One worker as the server sees it: a child process with a number of connections to it, each for one call at a time.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const FIRST_DESCRIPTOR = 4; // 0 to 2 are the standard ones, 3 is the channel on which `ready` is said
const SETPRIV = '/usr/bin/setpriv';

// Has the kernel end the worker with its server, even one that spins in a loop; elsewhere the channel's end does it.
function command(args) {
  const whole = [process.execPath, ...args];
  return process.platform === 'linux' && fs.existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'KILL', ...whole] : whole;
}

class WorkerProcess {
  // `settings.concurrency` connections; `env` is the function's environment.
  constructor(settings, env) {
    const [program, ...args] = command([path.join(__dirname, 'worker.js'), String(FIRST_DESCRIPTOR)]);
    const pipes = Array(settings.concurrency).fill('pipe');
    // A process group of its own, so that what a function starts ends with it.
    this.child = spawn(program, args, { env, detached: true, stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...pipes] });
    this.ready = new Promise((resolve, reject) => {
      this.child.once('message', resolve);
      this.child.once('error', reject);
      this.child.once('exit', () => reject(new Error('it ended before it had loaded the function')));
    });
    this.gone = new Promise((resolve) => {
      this.child.once('exit', resolve);
      this.child.once('error', resolve);
    }).then(() => this.kill()); // and what it left in its group
    this.calls = 0;
    this.retired = false;
    // After a failed spawn there are no pipes, and `error` follows.
    this.free = this.child.stdio.slice(FIRST_DESCRIPTOR).filter(Boolean).map((socket) => this.link(socket));
    this.links = this.free.length;
  }

  // A connection, as an agent that never opens another one: a call is never sent twice.
  link(socket) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    agent.createConnection = () => socket;
    socket.on('error', () => {}); // the call that it carries is told
    socket.once('close', () => {
      if (!this.free.includes(agent)) return; // it is with a call, which gives it back
      this.free = this.free.filter((each) => each !== agent);
      this.links -= 1;
    });
    agent.isUsable = () => !socket.destroyed;
    return agent;
  }

  take() {
    this.calls += 1;
    return this.free.pop();
  }

  give(agent) {
    this.calls -= 1;
    if (agent.isUsable()) this.free.push(agent);
    else this.links -= 1;
  }

  kill() {
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // no such group any more
    }
  }
}

module.exports = { WorkerProcess };
