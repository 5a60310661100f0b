// The HTTP side: health, metrics, CORS, limits and the access log. Never runs any of the function's code, so that it answers
// whatever the function does.
'use strict';

const http = require('node:http');
const net = require('node:net');

const { call } = require('./call');
const { Metrics } = require('./metrics');
const { Full, Left, Pool } = require('./pool');

// How much of a body over the limit is read on, and for how long, so that a caller still sending sees the 413.
const DRAIN_BYTES = 64 * 1024 * 1024;
const DRAIN_MS = 5000;
const BACKLOG = 2048;
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

class TooLarge extends Error {}

function say(res, status, text, headers = {}) {
  if (res.headersSent || res.destroyed) {
    res.destroy();
    return { status, bytes: 0 };
  }
  const body = Buffer.from(text);
  res.writeHead(status, { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'text/plain', 'Content-Length': body.length, ...headers });
  res.end(body);
  return { status, bytes: body.length };
}

// The whole body. Rejects with TooLarge, or Left when the caller breaks off.
function read(req, limit) {
  return new Promise((resolve, reject) => {
    const parts = [];
    let size = 0;
    req.on('data', (part) => {
      size += part.length;
      if (size > limit) parts.length = 0;
      else parts.push(part);
      if (size > limit + DRAIN_BYTES) reject(new TooLarge());
    });
    req.once('end', () => (size > limit ? reject(new TooLarge()) : resolve(Buffer.concat(parts, size))));
    req.once('close', () => reject(new Left())); // after `end` it means nothing any more
    req.on('error', () => reject(new Left()));
    if (Number(req.headers['content-length']) > limit) {
      if (req.headers.expect) reject(new TooLarge());
      else setTimeout(() => reject(new TooLarge()), DRAIN_MS).unref();
    }
  });
}

function stamp(now) {
  const two = (value) => String(value).padStart(2, '0');
  return `${two(now.getUTCDate())}/${MONTHS[now.getUTCMonth()]}/${now.getUTCFullYear()}:${two(now.getUTCHours())}:`
    + `${two(now.getUTCMinutes())}:${two(now.getUTCSeconds())} +0000`;
}

class Server {
  constructor(settings, env) {
    this.settings = settings;
    this.pool = new Pool(settings, env);
    this.metrics = new Metrics(settings.module);
    this.stopping = false;
    this.http = http.createServer({ keepAliveTimeout: settings.keepAlive * 1000 }, (req, res) => this.request(req, res));
    // Asked whether to send its body: the answer is the 413 or the wish for more, never both.
    this.http.on('checkContinue', (req, res) => {
      if (!(Number(req.headers['content-length']) > settings.maxBody)) {
        res.writeContinue();
        delete req.headers.expect;
      }
      this.request(req, res);
    });
  }

  // Serves once every worker has loaded the function; resolves to the port.
  async start() {
    await this.pool.start();
    if (this.stopping) return null;
    await new Promise((resolve, reject) => {
      this.http.once('error', reject);
      this.http.listen({ host: this.settings.host, port: this.settings.port, backlog: BACKLOG }, resolve);
    });
    return this.http.address().port;
  }

  // Accepts nothing new, finishes what runs and waits within the grace.
  async stop() {
    this.stopping = true;
    // The plain server's close: the listener goes first, idle connections after it.
    const closed = new Promise((resolve) => { net.Server.prototype.close.call(this.http, resolve); });
    this.http.closeIdleConnections();
    const grace = new Promise((resolve) => { setTimeout(resolve, this.settings.grace * 1000).unref(); });
    await Promise.race([closed, grace]);
    await this.pool.close();
  }

  async request(req, res) {
    const started = process.hrtime.bigint();
    if (this.stopping) res.shouldKeepAlive = false;
    res.once('close', () => {
      if (this.stopping) setImmediate(() => this.http.closeIdleConnections());
    });
    const { status, bytes } = await this.answer(req, res);
    if (this.settings.accessLog) this.log(req, status, bytes, started);
  }

  async answer(req, res) {
    const path = req.url.split('?', 1)[0];
    if (path === '/healthz' && (req.method === 'GET' || req.method === 'HEAD')) return say(res, 200, 'OK');
    if (path === '/metrics' && req.method === 'GET') {
      return say(res, 200, await this.metrics.text(), { 'Content-Type': this.metrics.contentType });
    }
    if (req.method === 'OPTIONS') return this.preflight(req, res);
    try {
      return await this.function(req, res);
    } catch (error) {
      if (error instanceof Left) return { status: 499, bytes: 0 };
      if (error instanceof TooLarge) {
        return say(res, 413, `Request body is over ${this.settings.maxBody} bytes\n`, { Connection: 'close' });
      }
      if (error instanceof Full) {
        return say(res, 503, 'Every worker is busy; the function was not called\n', { 'Retry-After': '1' });
      }
      throw error;
    }
  }

  // Any method and any header that is asked for, as Kubeless.
  preflight(req, res) {
    const allowed = {};
    const method = req.headers['access-control-request-method'];
    const headers = req.headers['access-control-request-headers'];
    if (method !== undefined) allowed['Access-Control-Allow-Methods'] = method;
    if (headers !== undefined) allowed['Access-Control-Allow-Headers'] = headers;
    req.resume();
    return say(res, 200, '', allowed);
  }

  async function(req, res) {
    const multipart = /^\s*multipart\/form-data\s*(;|$)/i.test(req.headers['content-type'] || '');
    const body = multipart ? null : await read(req, this.settings.maxBody);
    const lent = await this.pool.acquire(res);
    const started = process.hrtime.bigint();
    const record = (failed) => this.metrics.record(req.method, Number(process.hrtime.bigint() - started) / 1e9, failed);
    const result = await call(lent.agent, req, body, res, this.settings.timeout * 1000);
    // One that broke a connection is about to end: its other connections look whole for a moment longer.
    if (result.timedOut || result.died) this.pool.retire(lent.worker);
    lent.give();
    if (result.left) throw new Left();
    if (result.timedOut) {
      record(true);
      return say(res, 408, 'Timeout while processing the function\n');
    }
    if (result.died) {
      record(true);
      console.error('kubeless-runtime: a worker ended in the middle of a call');
      return say(res, 500, 'Internal Server Error\n');
    }
    if (result.called) record(result.status >= 500);
    return result;
  }

  // The raw path is still percent-encoded, so a line cannot be torn or forged; the query may hold secrets.
  log(req, status, bytes, started) {
    const seconds = (Number(process.hrtime.bigint() - started) / 1e9).toFixed(6);
    const path = req.url.split('?', 1)[0];
    console.log(`${req.socket.remoteAddress || '-'} - - [${stamp(new Date())}] "${req.method} ${path} HTTP/${req.httpVersion}" ${status} ${bytes} ${seconds}`);
  }
}

module.exports = { Server };
