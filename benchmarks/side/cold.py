"""One figure of a fresh interpreter: what importing costs, or starting managers.

Usage: `python cold.py import STATEMENT`, `python cold.py initialize PLUGINS`, `python cold.py tenants MANAGERS`. Prints
one JSON object: `{"seconds": …, "mib": …}`. For an import, `mib` is the peak of the whole process; otherwise what it
grew by.
"""

import sys
import time

TENANT_PLUGINS = 5
"""Plugins in the configuration that all tenants share."""


def memory_mib(key: str) -> float:
    """A memory figure of this process in MiB: `VmRSS` (now) or `VmHWM` (peak).

    Linux's own account: unlike `getrusage`, it does not start from the memory of the process that started this one.
    """
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) / 1024


def time_import(statement: str) -> tuple[float, float]:
    """Run one import statement. This file imports no more before it than what every interpreter has loaded anyway."""
    code = compile(statement, "<statement>", "exec")
    begun = time.perf_counter()
    exec(code, {})
    return time.perf_counter() - begun, memory_mib("VmHWM")


def time_managers(managers: int, plugins: int) -> tuple[float, float]:
    """Make and initialise managers over one configuration, and keep them all."""
    import asyncio
    import gc

    from loops import config_of

    from cpex.framework import TenantPluginManager

    async def run() -> tuple[float, float]:
        config = config_of("noop_plugins.NoOp", plugins)
        gc.collect()
        before, begun = memory_mib("VmRSS"), time.perf_counter()
        made = [TenantPluginManager(config) for _ in range(managers)]
        for manager in made:
            await manager.initialize()
        seconds = time.perf_counter() - begun
        gc.collect()
        grown = memory_mib("VmRSS") - before
        if any(manager.plugin_count != plugins for manager in made):
            raise RuntimeError("a manager started without all of its plugins")
        return seconds, grown

    return asyncio.run(run())


def main() -> None:
    """Measure what the command line asks for."""
    what, argument = sys.argv[1:]
    if what == "import":
        seconds, mib = time_import(argument)
    else:
        import logging

        logging.disable(logging.CRITICAL)
        number = int(argument)
        seconds, mib = time_managers(1, number) if what == "initialize" else time_managers(number, TENANT_PLUGINS)
    print(f'{{"seconds": {seconds:.9f}, "mib": {mib:.3f}}}')


if __name__ == "__main__":
    main()
