"""The same scenarios here and in the published package, outcomes compared field by field.

`python -m tests.conformance.differential --examples 5000` runs it. Each difference is a listed departure
(`departures.py`), shown to be exactly that, or a fault.
"""
