"""Departures in isolated plugins: hazards of the published release's own."""

from __future__ import annotations

from .departure import Departure

ENVIRONMENTS: tuple[Departure, ...] = (
    Departure(
        "V1",
        "the worker's file",
        "is looked for below the working directory, so only a host in a source checkout finds it",
        "is that of the `cpex` in the plugin's environment; one without is refused at the start",
    ),
    Departure(
        "V2",
        "`plugin_dirs` of isolated plugins",
        "are dropped in silence when they lie elsewhere, compared as text, and an `IndexError` when none is left",
        "are the operator's; none at all is an error that says so",
    ),
    Departure(
        "V3",
        "pip",
        "runs without a time limit, writes to the host's output and updates itself first",
        "has a time limit, its last lines stand in the failure, and it stays as it is",
    ),
    Departure("V4", "an environment of another Python", "is used", "is built anew"),
    Departure(
        "V5",
        "a plugin that is replaced in its worker, or left at its end",
        "is dropped",
        "is shut down",
    ),
    Departure("V6", "an answer without a decision", "is an allow", "is a failure"),
    Departure("V7", "shutting down the manager", "leaves the worker running", "ends it, and what it has started"),
    Departure(
        "V8",
        "headers from hosts of the other build",
        "arrive as an empty slot",
        "are read and written under both names",
    ),
    Departure(
        "V9",
        "a line of exactly the limit; a longer one",
        "passes the host and is refused by the worker; leaves the caller waiting",
        "passes both; is answered under its id, or not sent",
    ),
    Departure("V10", "a worker that is stuck", "makes every later call time out", "is ended and replaced"),
    Departure(
        "V11",
        "a worker that dies",
        "leaves its callers to their timeouts",
        "ends its callers at once, with its last lines; the next call finds another",
    ),
    Departure("V12", "calls that find no worker", "may start one each", "share one start"),
    Departure(
        "V13",
        "a rebuild after a change of version or manifest",
        "loses the package that the installer had put there",
        "installs it again",
    ),
    Departure(
        "V14",
        "`script_path`",
        "is ignored here and breaks hosts in Rust",
        "is ignored, and written by no tool",
    ),
    Departure("V15", "what a plugin writes into its context", "is lost", "comes back"),
    Departure(
        "V16",
        "denials and failures under `audit`, `transform`, `ignore`",
        "are made allows by the worker",
        "are told by the worker, and judged by the host",
    ),
    Departure(
        "V17",
        "what a plugin prints",
        "lies between the answers, and can forge one",
        "goes to standard error, descriptor 1 included",
    ),
    Departure(
        "V18",
        "headers that hold credentials",
        "reach the plugin; three names are taken out on the way back",
        "do not cross, four names, in neither direction",
    ),
    Departure("V19", "requirements files outside of the plugin's folder", "are installed", "are refused"),
    Departure(
        "V20",
        "extensions and credentials",
        "are not sent to isolated plugins",
        "are sent as the capabilities say, to workers that know them",
    ),
    Departure(
        "V21",
        "a plugin that its worker cannot load",
        "fails each call",
        "stops the start",
    ),
    Departure(
        "V22",
        "two classes of one package",
        "take each other's record for outdated and rebuild at every start",
        "share one record",
    ),
)
