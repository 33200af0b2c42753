"""Where policy decision points, the command line and the templates differ from the published release."""

from __future__ import annotations

from .departure import Departure

TOOLS: tuple[Departure, ...] = (
    Departure("P1", "the address of a decision point", "is taken as it is", "obeys the rules for URLs"),
    Departure(
        "P2",
        "a placeholder that cannot be filled",
        "is asked for in braces; `{0}` is an `IndexError`",
        "is an error, or let pass by `fail_open`; anything but `{key}` is refused when the resolver is built",
    ),
    Departure("P3", "a value in the address", "may change the path that is asked", "is one path segment"),
    Departure(
        "P4",
        "bad answers and bad questions",
        "raise whatever reading them raises, also under `fail_open`",
        "are `PdpError`, or let pass by `fail_open`, aloud; one deadline covers the whole question",
    ),
    Departure("P5", "a decision that is no boolean, such as the text `false`", "allows", "never allows by itself"),
    Departure("P6", "OPA's `deny` beside `allow`", "is a reason only", "denies"),
    Departure("P7", "strict integrity mode", "is documented and does nothing", "refuses what cannot be compared"),
    Departure(
        "P8",
        "importing the tools",
        "puts variables of a `.env` into the process",
        "changes nothing; settings and clients are made when they are needed",
    ),
    Departure(
        "P9",
        "an unknown action, a missing SOURCE, nothing found",
        "end in 0",
        "end in 2, 2 and 3",
    ),
    Departure("P10", "`cpex bootstrap` without a destination", "fails", "asks for a name, or takes `my_filter`"),
    Departure("P11", "`cpex plugin versions`", "does what `search` does", "lists the versions"),
    Departure(
        "P12",
        "JSON mode",
        "has log lines on standard output",
        "is one document there; everything else goes to standard error",
    ),
    Departure(
        "P13",
        "several plugins that a word means, with `-y`",
        "the last in the alphabet is installed",
        "are refused by name; versions are ordered as versions",
    ),
    Departure("P14", "a repeated installation", "adds another instance", "writes the version of the one that is there"),
    Departure(
        "P15",
        "the configuration that an installation writes",
        "loses comments, templates and unset fields, and has values of the environment in it",
        "stays letter by letter beside the new instance; the former file is kept",
    ),
    Departure("P16", "an installation that fails half-way", "leaves what was done", "is undone"),
    Departure(
        "P17",
        "removing a plugin",
        "removes instances whose name contains its name, in that case only",
        "removes the instances that were made from its manifest",
    ),
    Departure(
        "P18",
        "a manifest of kind `native`, `builtin`, `wasm` or `PDP`",
        "is installed and cannot be loaded",
        "is refused",
    ),
    Departure(
        "P19",
        "the hash of a package whose name ends in letters of `json`",
        "is asked for under a shorter name, and so never compared",
        "is asked for by the whole name, and the version of the downloaded file",
    ),
    Departure(
        "P20",
        "the file whose hash was compared",
        "is read and thrown away; another download is installed",
        "is the one that is installed",
    ),
    Departure("P21", "a source archive", "is as good as a wheel", "is taken, aloud, where there is no wheel"),
    Departure(
        "P22",
        "projects from templates",
        "name hooks that are none, cannot be installed, and fail their own test",
        "pass their own test and check, and can be installed",
    ),
    Departure("P23", "a question without a terminal", "is a traceback", "ends in 2 and names the option to give"),
    Departure(
        "P24",
        "the catalogue, before `list`, `search`, `versions` and `install`",
        "is asked for from the network",
        "is asked for with `--refresh` only",
    ),
    Departure(
        "P25",
        "`cpex bootstrap` with an unknown type, any action with an unknown `--type`",
        "ends in 4; is passed over by all but `install`",
        "ends in 2, with the types that are known",
    ),
    Departure(
        "P26",
        "a variable of the environment with a wrong value",
        "is a traceback",
        "ends in 2 and is named, without its value",
    ),
    Departure(
        "P27",
        "a manifest's hook that nothing calls",
        "is written into the configuration without a word",
        "is a WARNING with the nearest known name",
    ),
)
