"""What is told of requests: metrics for Prometheus, lines for the log."""
