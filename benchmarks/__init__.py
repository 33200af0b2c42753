"""How fast is the engine: against the bare calls it cannot be faster than, and against the published release.

`python -m benchmarks` answers with ratios measured in one run. Two interpreters, one with this tree and one with the
published package, take turns at the same scenario (`side/`); this package starts them, compares and prints.
docs/benchmarks.md tells what each row measures and how far its figure can be trusted.
"""
