// What the environment says. Read once; nothing else reads it, except the worker for the function's own.
'use strict';

const path = require('node:path');

class SettingsError extends Error {}

function number(env, name, fallback, lowest, whole) {
  const text = (env[name] || '').trim();
  if (!text) return fallback;
  const value = Number(text);
  if (!Number.isFinite(value) || (whole && !Number.isInteger(value))) {
    throw new SettingsError(`${name}=${JSON.stringify(text)} is not a number`);
  }
  if (value < lowest) throw new SettingsError(`${name}=${JSON.stringify(text)} is below ${lowest}`);
  return value;
}

function read(env) {
  const module = env.MOD_NAME || '';
  const handler = env.FUNC_HANDLER || '';
  if (!module || !handler) throw new SettingsError('MOD_NAME and FUNC_HANDLER must name the module and the function');
  const volume = env.KUBELESS_INSTALL_VOLUME || '/kubeless';
  return {
    module,
    handler,
    path: path.resolve(env.KUBELESS_FUNC_PATH || path.join(volume, `${module}.js`)),
    host: env.FUNC_HOST || '0.0.0.0',
    port: number(env, 'FUNC_PORT', 8080, 0, true),
    timeout: number(env, 'FUNC_TIMEOUT', 180, 0.001, false),
    runtime: env.FUNC_RUNTIME,
    memoryLimit: env.FUNC_MEMORY_LIMIT,
    maxBody: Math.floor(number(env, 'REQ_MB_LIMIT', 1, 0, false) * 1024 * 1024),
    workers: number(env, 'FUNC_WORKERS', 1, 1, true),
    concurrency: number(env, 'FUNC_CONCURRENCY', 64, 1, true),
    maxWaiting: number(env, 'FUNC_MAX_WAITING', 1000, 0, true),
    keepAlive: number(env, 'FUNC_KEEP_ALIVE', 75, 1, true),
    grace: number(env, 'FUNC_SHUTDOWN_GRACE', 25, 1, true),
    accessLog: !['0', 'false', 'off', 'no'].includes(env.FUNC_ACCESS_LOG || '1'),
  };
}

module.exports = { SettingsError, read };
