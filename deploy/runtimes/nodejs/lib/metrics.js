// The three metrics every Kubeless runtime has, under their old names and with the label values of Kubeless's Node runtime.
'use strict';

const client = require('prom-client');

class Metrics {
  constructor(module) {
    this.module = module;
    this.registry = new client.Registry();
    const common = { labelNames: ['method'], registers: [this.registry] };
    this.calls = new client.Counter({ name: 'function_calls_total', help: 'Number of calls to user function', ...common });
    this.failures = new client.Counter({
      name: 'function_failures_total', help: 'Number of exceptions in user function', ...common,
    });
    this.seconds = new client.Histogram({
      name: 'function_duration_seconds', help: 'Duration of user function in seconds', ...common,
    });
  }

  // Node's parser admits only the methods it knows, so the label is from a closed list.
  record(method, seconds, failed) {
    const label = `${this.module}-${method}`;
    this.calls.labels(label).inc();
    this.failures.labels(label).inc(failed ? 1 : 0);
    this.seconds.labels(label).observe(seconds);
  }

  get contentType() {
    return this.registry.contentType;
  }

  text() {
    return this.registry.metrics();
  }
}

module.exports = { Metrics };
