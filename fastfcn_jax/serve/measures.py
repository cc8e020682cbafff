"""Counters and gauges of the server, as Prometheus reads them."""

import prometheus_client as prometheus

# A prediction takes milliseconds on a GPU and minutes for a large photograph on a processor.
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Measures:
    """All that `/metrics` shows; each server has its own registry."""

    def __init__(self):
        registry = self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)  # memory, processor time, open files
        self.replies = prometheus.Counter(
            "fastfcn_replies",
            "Replies by HTTP status; 499: the client had left.",
            ["status"],
            registry=registry,
        )
        self.predictions = prometheus.Histogram(
            "fastfcn_prediction_seconds",
            "Decoding, predicting and encoding one image, without waiting.",
            buckets=SECONDS,
            registry=registry,
        )
        self.waited = prometheus.Histogram(
            "fastfcn_waiting_seconds",
            "From an upload's end until its prediction begins.",
            buckets=SECONDS,
            registry=registry,
        )
        self.held = prometheus.Gauge(
            "fastfcn_requests",
            "Requests that are uploading, waiting or predicted.",
            registry=registry,
        )
        self.held_bytes = prometheus.Gauge(
            "fastfcn_upload_bytes", "Room reserved for their uploads.", registry=registry
        )
        self.compilations = prometheus.Counter(
            "fastfcn_compilations", "Programs compiled for a new image size.", registry=registry
        )

    def text(self) -> bytes:
        return prometheus.generate_latest(self.registry)
