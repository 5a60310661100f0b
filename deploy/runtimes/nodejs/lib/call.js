// One call: a request goes to a worker over a connection of its own, the answer comes back. Never sent twice.
'use strict';

const http = require('node:http');
const { pipeline } = require('node:stream');

const HOP_BY_HOP = new Set([
  'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer',
  'transfer-encoding', 'upgrade',
]);
const NOT_CALLED = 'kubeless-not-called';

// [name, value] pairs without those that concern one connection only.
function endToEnd(raw, without = []) {
  const pairs = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at].toLowerCase();
    if (!HOP_BY_HOP.has(name) && !without.includes(name)) pairs.push([raw[at], raw[at + 1]]);
  }
  return pairs;
}

function requestHeaders(req, body) {
  // Whole in memory by now, whatever its transfer encoding was. A stream keeps its length if it has one.
  const pairs = endToEnd(req.rawHeaders, body === null ? ['expect'] : ['expect', 'content-length']);
  if (body !== null) pairs.push(['Content-Length', String(body.length)]);
  else if (req.headers['content-length'] === undefined) pairs.push(['Transfer-Encoding', 'chunked']);
  return pairs.flat();
}

// Runs the handler once and passes its answer on to `res`. `body` is null for one that is streamed from `req`.
// Resolves to {called, status, bytes} when the answer is through, to {timedOut: true}, to {died: true} when the connection
// broke, or to {left: true} when the caller did in the middle of a streamed body.
function call(agent, req, body, res, timeoutMs) {
  return new Promise((resolve) => {
    const out = http.request({ agent, method: req.method, path: req.url, headers: requestHeaders(req, body) });
    const timer = setTimeout(() => end({ timedOut: true }), timeoutMs);
    function end(result) {
      clearTimeout(timer);
      // With a request or an answer that is not through, the connection carries no other call.
      if (result.called === undefined || !out.writableFinished) out.destroy();
      resolve(result);
    }
    out.on('error', () => end({ died: true }));
    out.on('response', (back) => {
      const called = back.headers[NOT_CALLED] === undefined;
      let bytes = 0;
      back.on('data', (part) => { bytes += part.length; });
      back.on('end', () => end({ called, status: back.statusCode, bytes }));
      back.on('error', () => end({ died: true }));
      if (res.destroyed) return; // nobody to tell; the answer is read to its end all the same
      const headers = endToEnd(back.rawHeaders, [NOT_CALLED]);
      res.writeHead(back.statusCode, back.statusMessage, headers.flat());
      back.on('end', () => res.end());
      back.on('data', (part) => {
        if (res.destroyed || res.write(part)) return;
        back.pause();
        res.once('drain', () => back.resume());
      });
      res.once('close', () => back.resume());
    });
    if (body !== null) out.end(body);
    else pipeline(req, out, (error) => { if (error) end(req.complete ? { died: true } : { left: true }); });
  });
}

module.exports = { call };
