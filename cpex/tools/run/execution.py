"""Carries a run out: opens the files, starts the pipeline, replays, reports, and says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from pydantic import ValidationError

from cpex.framework.clock import SystemClock
from cpex.framework.errors import ConfigError, Fault, PluginLoadError
from cpex.framework.loader.config import config_digest
from cpex.framework.loader.faults import path_text
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config
from cpex.tools.console import STANDARD, complain, console_for, plugins_print_to_stderr, print_json
from cpex.tools.events import Decision
from cpex.tools.exit_codes import ExitCode
from cpex.tools.logs import ENGINE, LogPrinter, logs_to_stderr
from cpex.tools.run.lines import read_lines
from cpex.tools.run.progress import progress
from cpex.tools.run.replay import Replay
from cpex.tools.run.report import Summary, print_summary
from cpex.tools.run.tally import Tally

__all__ = ["Run"]

_REAL = SystemClock()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAKE_ROOM = "make room where `--out` writes; the last line there may be torn"


class _Refused(Exception):
    """The run cannot begin; the reason has been printed."""


@dataclass
class Run:
    """One call of `cpex run`, with its options as attributes."""

    events: str
    config: str
    out: str | None
    fail_on_deny: bool
    as_json: bool
    show_removed: bool
    verbose: bool
    tally: Tally = field(default_factory=Tally)
    terminated: bool = False
    """Whether SIGTERM has asked for an end."""

    def execute(self) -> ExitCode:
        """Do everything, and say how it ended."""
        try:
            with contextlib.ExitStack() as stack:
                stdout = stack.enter_context(plugins_print_to_stderr())
                logs = stack.enter_context(logs_to_stderr(self.verbose))
                source = self._open_source(stack)
                manager = self._manager()
                sink = self._open_sink(stack, stdout)
                summary = asyncio.run(self._replay(manager, source, sink, logs))
        except _Refused:
            return ExitCode.FAILURE
        except asyncio.CancelledError:
            # SIGTERM while plugins were being started or shut down; nothing else cancels a run from outside.
            return ExitCode.TERMINATED
        except BrokenPipeError:
            raise
        except SystemExit:
            # SECURITY: with the plugin's own code, 0 perhaps, the rest of the events would look judged.
            what = f"the run broke off after {self.tally.events:,} events: a plugin called sys.exit()"
            complain(
                Fault(code="run-broken-off", message=what, help="a plugin that cannot go on must raise an exception")
            )
            return ExitCode.FAILURE
        # Plugins' errors end where they are called; what arrives here happened to the files of the run.
        except OSError as error:
            help = _MAKE_ROOM if error.errno in _FULL else "check the files of the run"
            _refused("run-broken-off", f"the run broke off after {self.tally.events:,} events", error, help)
            return ExitCode.FAILURE
        self._report(summary)
        return self._code(summary)

    def _open_source(self, stack: contextlib.ExitStack) -> int:
        if self.events == STANDARD:
            return sys.stdin.fileno()
        try:
            descriptor = os.open(self.events, os.O_RDONLY)
            # Opening a folder succeeds, reading it does not.
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise IsADirectoryError(None, "it is a folder")
        except OSError as error:
            raise _refused("events-unreadable", f"events file `{self.events}` cannot be read", error) from error
        stack.callback(os.close, descriptor)
        return descriptor

    def _open_sink(self, stack: contextlib.ExitStack, stdout: IO[str]) -> BinaryIO | None:
        if self.out is None:
            return None
        if self.out == STANDARD:
            # `IO[str]` does not promise a buffer below; standard output has one.
            buffer: BinaryIO = stdout.buffer  # type: ignore[attr-defined]
            return buffer
        try:
            return stack.enter_context(open(self.out, "wb"))
        except OSError as error:
            raise _refused("decisions-unwritable", f"decisions cannot be written to `{self.out}`", error) from error

    def _manager(self) -> TenantPluginManager:
        try:
            return TenantPluginManager(self.config)
        except ConfigError as error:
            for fault in error.faults:
                complain(fault)
            raise _Refused from error

    async def _replay(
        self, manager: TenantPluginManager, source: int, sink: BinaryIO | None, logs: LogPrinter
    ) -> Summary:
        self._end_on_sigterm()
        await self._start(manager, logs)
        config = config_digest(manager.config or Config())
        started_ns = _REAL.monotonic_ns()
        try:
            with progress(self.tally, _size(source), sys.stderr) as advance:
                replay = Replay(
                    manager,
                    self._file,
                    on_decision=self._decision_taker(sink, config, lambda: advance(replay.reached)),
                    on_fault=self._take_fault,
                    on_warning=lambda fault: complain(fault, "warning"),
                    show_removed=self.show_removed,
                )
                complete = await replay.run(read_lines(source, sink.flush if sink is not None else _nothing))
            duration_s = (_REAL.monotonic_ns() - started_ns) / 1e9
        finally:
            await manager.shutdown()
        replay.finish()
        if sink is not None:
            sink.flush()
        return Summary(
            file=self._file,
            config=config,
            tally=self.tally,
            duration_s=duration_s,
            interrupted=not complete,
            disabled=tuple(sorted(manager.disabled_plugins)),
            missing=tuple(manager.failed_plugins),
            refused=manager.executor.background.refused,
        )

    def _end_on_sigterm(self) -> None:
        """Let SIGTERM do what Ctrl-C does, as long as this event loop runs."""
        task = asyncio.current_task()
        assert task is not None  # it is the main task of `asyncio.run`

        def end() -> None:
            self.terminated = True
            task.cancel()

        # Event loops of Windows have no signal handlers, and nobody sends the signal there.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)

    async def _start(self, manager: TenantPluginManager, logs: LogPrinter) -> None:
        # Failures to start are told below, with their places.
        logs.thresholds[ENGINE] = logging.CRITICAL
        try:
            await manager.initialize()
        except PluginLoadError as error:
            for each in error.failures:
                complain(_start_fault(each.plugin, each.cause, each.location))
            raise _Refused from error
        for failed in manager.failed_plugins.values():
            complain(_start_fault(failed.name, failed.error, failed.location), "warning")
        # Denials, would-be denials and disabled plugins are in the summary; failures are logged.
        logs.thresholds[ENGINE] = logging.ERROR

    def _decision_taker(
        self, sink: BinaryIO | None, config: str, advance: Callable[[], None]
    ) -> Callable[[Decision], None]:
        def take(decision: Decision) -> None:
            self.tally.count(decision)
            if sink is not None:
                sink.write(decision.line(config))
            advance()

        return take

    def _take_fault(self, fault: Fault) -> None:
        self.tally.bad_lines += 1
        complain(fault)

    def _report(self, summary: Summary) -> None:
        if self.as_json:
            print_json(summary.document(), sys.stdout)
        else:
            # Decisions on standard output leave no room there for anything else.
            print_summary(summary, console_for(sys.stderr if self.out == STANDARD else sys.stdout))

    def _code(self, summary: Summary) -> ExitCode:
        if summary.interrupted:
            return ExitCode.TERMINATED if self.terminated else ExitCode.INTERRUPTED
        if self.fail_on_deny and self.tally.denied:
            return ExitCode.DENIED
        return ExitCode.FAILURE if self.tally.bad_lines or self.tally.failed else ExitCode.OK

    @property
    def _file(self) -> str:
        return "<stdin>" if self.events == STANDARD else self.events


def _nothing() -> None:
    """There is nothing to flush."""


def _size(descriptor: int) -> int | None:
    """Bytes of a regular file."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _refused(code: str, what: str, error: OSError, help: str = "check the path") -> _Refused:
    reason = error.strerror or str(error)
    complain(Fault(code=code, message=f"{what}: {reason[:1].lower()}{reason[1:]}", help=help))
    return _Refused()


def _start_fault(plugin: str, cause: BaseException, location: str | None) -> Fault:
    if isinstance(cause, ValidationError):
        # SECURITY: its own text quotes the settings that it refuses.
        details = cause.errors(include_url=False, include_input=False, include_context=False)
        why = "; ".join(f"{path_text(each['loc'])}: {each['msg']}" for each in details)
    else:
        why = " ".join(f"{type(cause).__name__}: {cause}".split())
    return Fault(
        code="plugin-start",
        message=f"plugin `{plugin}` did not start: {why[:500]}",
        file=location,
        help="`cpex check` tells whether it is the configuration",
    )
