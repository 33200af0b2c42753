"""What the published package's outcome of a translated scenario becomes here.

Each function that is listed here edits `case.theirs` into what this framework promises, for one decision. Where the
published package leaves no trace from which that could be worked out, it takes the part out of both outcomes, and says
so.
"""

from __future__ import annotations

from . import of_extensions, of_records, of_results
from .case import Expectation

EXPECTATIONS: tuple[tuple[str, Expectation], ...] = (
    ("D9.values", of_records.quote_no_refused_values),
    ("D13", of_records.call_containers_by_name),
    ("D5a", of_records.pass_over),
    ("D7b", of_records.tell_raised_violations),
    ("D22", of_records.forget_disabled),
    ("D19", of_results.forget_cancelled_siblings),
    ("D22a", of_records.tell_no_reason_for_allowing),
    ("D22a", of_records.tell_background_truth),
    ("D8", of_records.tell_ignored_failures),
    ("D7", of_records.tell_would_be_denials),
    ("D29", of_results.gather_replies),
    ("D17", of_extensions.chain_extensions),
    ("D21", of_results.keep_what_was_gathered),
    ("D24", of_results.continue_tables),
    ("D16", of_results.show_the_final_payload),
    ("D18", of_records.name_timeouts),
    ("D20", of_records.keep_records_of_failures),
    ("", of_records.forget_where_it_failed),
)
"""`(decision, expectation)`, in the order in which they apply."""
