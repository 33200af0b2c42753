"""Plugins that tell what went through the hooks: an audit log, OpenTelemetry spans, Prometheus metrics."""
