"""The tracing port."""

from cpex.framework.observability import NullObservability, ObservabilityProvider, current_trace_id


def test_no_trace_is_named_until_the_host_names_one():
    assert current_trace_id.get() is None


def test_the_provider_that_does_nothing_is_a_provider():
    provider = NullObservability()

    assert isinstance(provider, ObservabilityProvider)
    assert provider.start_span(trace_id="t", name="n", attributes={"a": 1}) is None
    assert provider.end_span(span_id=None, status="error") is None


def test_any_object_with_both_methods_is_a_provider_and_others_are_not():
    class Own:
        def start_span(self, **span):
            return "1"

        def end_span(self, **span):
            pass

    assert isinstance(Own(), ObservabilityProvider)
    assert not isinstance(object(), ObservabilityProvider)
