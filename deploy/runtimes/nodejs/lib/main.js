#!/usr/bin/env node
// Starts the server, says when it is ready, ends it on SIGTERM or SIGINT. Exit codes: 0 after a signal, 1 if the function
// cannot be loaded or the port not be had, 2 for bad settings.
'use strict';

const { Server } = require('./server');
const { SettingsError, read } = require('./settings');

async function main() {
  const settings = read(process.env);
  const server = new Server(settings, process.env);
  const stop = () => {
    if (!server.stopping) server.stop().then(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  try {
    const port = await server.start();
    if (port !== null) console.log(`kubeless-runtime: listening on ${settings.host}:${port}`);
  } catch (error) {
    if (server.stopping) return;
    console.error(`kubeless-runtime: cannot serve ${settings.handler} from ${settings.path}: ${error.message}`);
    await server.pool.close();
    process.exit(1);
  }
}

main().catch((error) => {
  console.error(`kubeless-runtime: ${error instanceof SettingsError ? error.message : error.stack}`);
  process.exit(error instanceof SettingsError ? 2 : 1);
});
