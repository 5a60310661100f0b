// One worker process: loads the function's module once, then answers calls. The server starts it with its end of every
// connection as a descriptor: nobody else can reach the function, and nothing is listened on.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const { pathToFileURL } = require('node:url');

const express = require('express');
const settings = require('./settings').read(process.env);

const MULTIPART = 'multipart/form-data';

const context = {
  'function-name': settings.handler,
  timeout: settings.timeout,
  runtime: settings.runtime,
  'memory-limit': settings.memoryLimit,
};

async function load(file) {
  const found = [file, file.replace(/\.js$/, '.mjs'), file.replace(/\.js$/, '.cjs')].find((each) => fs.existsSync(each)) || file;
  let loaded;
  try {
    loaded = require(found);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM') throw error;
    loaded = await import(pathToFileURL(found).href);
  }
  // As Kubeless: an object of functions, or the function itself whatever FUNC_HANDLER says.
  const handler = [loaded[settings.handler], loaded, loaded.default && loaded.default[settings.handler], loaded.default]
    .find((each) => typeof each === 'function');
  if (!handler) throw new Error(`${found} exports no function named ${settings.handler}`);
  return handler;
}

// The `data` of an event; `{}` for an empty body and for a multipart one. Throws SyntaxError for broken JSON.
function parse(req) {
  if (!Buffer.isBuffer(req.body) || req.body.length === 0) return {};
  const text = req.body.toString('utf-8');
  return req.is('application/json') ? JSON.parse(text) : text;
}

function finish(res, value) {
  if (res.writableEnded) return; // the function answered by itself
  if (value === undefined) res.end();
  else if (typeof value === 'string' || value instanceof Uint8Array) res.end(value);
  else if (typeof value === 'object') res.json(value);
  else res.end(JSON.stringify(value));
}

function failed(res, error) {
  console.error(`Function failed to execute: ${(error && error.stack) || error}`);
  if (res.headersSent) res.destroy(); // half an answer must not look like a whole one
  else res.status(500).type('text/plain').send('Internal Server Error');
}

function answering(handler) {
  return async (req, res) => {
    let event;
    try {
      event = {
        'event-type': req.get('event-type'),
        'event-id': req.get('event-id'),
        'event-time': req.get('event-time'),
        'event-namespace': req.get('event-namespace'),
        data: parse(req),
        extensions: { request: req, response: res },
      };
    } catch {
      res.set('kubeless-not-called', '1').status(400).type('text/plain').send('Invalid JSON\n');
      return;
    }
    try {
      res.set('Access-Control-Allow-Origin', '*');
      finish(res, await handler(event, context));
    } catch (error) {
      failed(res, error);
    }
  };
}

function application(handler) {
  const app = express();
  app.disable('x-powered-by');
  app.set('query parser', 'extended'); // nested parameters, as functions for Express 4 know them
  // Bounded by the server already, and here once more because a compressed body grows. A multipart body stays a stream
  // for the function's own parser.
  app.use(express.raw({ type: (req) => !req.is(MULTIPART), limit: settings.maxBody }));
  app.use((req, res, next) => {
    if (req.body === undefined) req.body = {};
    next();
  });
  app.use(answering(handler));
  // A body that cannot be inflated or whose sender broke off: no call.
  // eslint-disable-next-line no-unused-vars
  app.use((error, req, res, next) => {
    res.set('kubeless-not-called', '1').status(error.status || 400).type('text/plain').send(`${error.message}\n`);
  });
  return app;
}

async function main() {
  process.on('disconnect', () => process.exit(0)); // the server is gone
  // A forgotten promise ends no process in Kubeless's runtimes; it must not take other calls with it here.
  process.on('unhandledRejection', (error) => console.error(`Unhandled rejection: ${(error && error.stack) || error}`));
  const server = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 }, application(await load(settings.path)));
  for (let each = 0; each < settings.concurrency; each += 1) {
    server.emit('connection', new net.Socket({ fd: Number(process.argv[2]) + each }));
  }
  process.send('ready');
}

main().catch((error) => {
  console.error((error && error.stack) || error);
  process.exit(1);
});
