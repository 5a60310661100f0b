"""The three metrics every Kubeless runtime has, under their old names."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client import generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    def __init__(self):
        disable_created_metrics()
        self._registry = CollectorRegistry()
        calls = Counter("function_calls_total", "Number of calls to user function", ["method"], registry=self._registry)
        failures = Counter("function_failures_total", "Number of exceptions in user function", ["method"],
                           registry=self._registry)
        seconds = Histogram("function_duration_seconds", "Duration of user function in seconds", ["method"],
                            registry=self._registry)
        self._by_method = {
            method: (calls.labels(method), failures.labels(method), seconds.labels(method))
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        }

    def record(self, method, seconds, failed):
        calls, failures, histogram = self._by_method[method]
        calls.inc()
        histogram.observe(seconds)
        if failed:
            failures.inc()

    def text(self):
        return generate_latest(self._registry)
