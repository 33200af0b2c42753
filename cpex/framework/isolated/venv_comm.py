"""The way to a worker in a virtual environment, for code that does not run on an event loop, and for the plugin client.

`VenvProcessCommunicator` keeps the names of release 0.1, which block the caller. They share one `WorkerLink` that lives
on a loop in a thread of its own, started by the first of them. `IsolatedVenvPlugin` uses its link directly, on its own
loop, and needs no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cpex.framework.isolated.commands import CommandFailed, run_command
from cpex.framework.isolated.environment import INSTALL_TIMEOUT_S, python_of
from cpex.framework.isolated.framing import DEFAULT_MAX_BYTES, frame
from cpex.framework.isolated.link import Prepare, WorkerLink
from cpex.framework.isolated.locating import worker_script
from cpex.framework.isolated.process import WorkerProcess, worker_environment

__all__ = ["VenvProcessCommunicator"]

T = TypeVar("T")
CLOSE_S = 15.0
"""Seconds that a blocking stop waits; the link ends a worker in less."""


class VenvProcessCommunicator:
    """Talks to one worker.

    Attributes:
        venv_path: Folder of the environment.
        python_executable: Its interpreter.
        link: The same worker for callers on an event loop. Use either the link or the blocking methods.
    """

    def __init__(self, venv_path: str, *, name: str = "unnamed", env: Mapping[str, str] | None = None) -> None:
        """Args:
        venv_path: Must exist.
        name: Of the plugin, for messages.
        env: All variables that the worker gets; what Python needs, if not given.

        Raises:
            FileNotFoundError: There is no interpreter in it.
        """
        self.venv_path = str(venv_path)
        python = python_of(Path(venv_path))
        if not python.exists():
            raise FileNotFoundError(f"Python executable not found: {python}; build the environment first")
        self.python_executable = str(python)
        self._script: str | None = None
        self._env = dict(env) if env is not None else worker_environment()
        self._name = name
        self.link = self._new_link(DEFAULT_MAX_BYTES, None)
        self._thread: _LoopThread | None = None

    def _new_link(self, max_bytes: int, prepare: Prepare | None) -> WorkerLink:
        return WorkerLink(self._name, self._command, self._env, max_bytes, prepare)

    def use(self, max_bytes: int, prepare: Prepare) -> WorkerLink:
        """The link, with another limit on lines and something to do with each new worker; before the first start."""
        self.link = self._new_link(max_bytes, prepare)
        return self.link

    def _command(self) -> list[str]:
        if self._script is None:
            self._script = str(worker_script(Path(self.venv_path), self._name))
        return [self.python_executable, self._script]

    @property
    def process(self) -> WorkerProcess | None:
        """The worker that was started last: `pid`, `alive`."""
        return self.link.process

    @property
    def running(self) -> bool:
        """Whether a worker runs."""
        return self.process is not None and self.process.alive

    @property
    def response_queues(self) -> Mapping[str, Any]:
        """Who waits for an answer, by request id."""
        return self.process.waiting if self.process is not None else {}

    def is_alive(self) -> bool:
        """Whether a worker runs."""
        return self.running

    # Blocking.

    def upgrade_pip(self) -> None:
        """Bring pip in the environment up to date. Nothing here needs it.

        Raises:
            RuntimeError: pip failed; the text has its last lines.
        """
        self._pip(["--upgrade", "pip"], "Failed to upgrade pip")

    def install_requirements(self, requirements_file: str) -> None:
        """Install a requirements file into the environment.

        Raises:
            RuntimeError: pip failed; the text has its last lines.
        """
        self._pip(["-r", requirements_file], f"Failed to install requirements from {requirements_file}")

    def _pip(self, arguments: list[str], failed: str) -> None:
        command = [self.python_executable, "-m", "pip", "install", "--quiet", *arguments]
        try:
            self._run(run_command(command, INSTALL_TIMEOUT_S))
        except (CommandFailed, OSError) as error:
            told = error.told() if isinstance(error, CommandFailed) else ""
            raise RuntimeError(f"{failed}: pip {error}{told}") from error

    def start_worker(self, script_path: str) -> None:
        """Start the worker, if none runs.

        Args:
            script_path: Of the worker's file. One that does not exist is looked for in the environment.

        Raises:
            RuntimeError: It cannot be started; the text has the last lines of its standard error.
        """
        self._script = script_path if Path(script_path).is_file() else None
        try:
            self._run(self.link.ready())
        except (RuntimeError, OSError) as error:
            raise RuntimeError(f"Failed to start worker process: {error}") from error

    def send_task(
        self,
        script_path: str,
        task_data: Any,
        timeout: float = 30.0,
        max_content_size: int = DEFAULT_MAX_BYTES,
    ) -> Any:
        """Ask the worker, starting it if none runs, and wait for the answer.

        Args:
            script_path: See `start_worker`.
            task_data: An object in the words of JSON; it gets a `request_id` of its own.
            timeout: Seconds.
            max_content_size: Bytes of the task.

        Returns:
            The answer without its `request_id`.

        Raises:
            RuntimeError: The worker answered with an error, ended, or did not answer in time; or the task is too long.
        """
        size = len(json.dumps(task_data))
        if size > max_content_size:
            raise RuntimeError(f"task_data exceeds max_content_size: {size} bytes, at most {max_content_size}")
        if not self.running:
            self.start_worker(script_path)
        self.link.max_bytes = max(max_content_size, self.link.max_bytes)

        def line(_: WorkerProcess, request_id: str) -> bytes:
            return frame({**task_data, "request_id": request_id})

        return self._run(self.link.call(line, timeout))[1]

    def stop_worker(self) -> None:
        """End the worker. Does nothing when none runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self.link.close(), CLOSE_S)
            finally:
                thread.stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            self._thread = _LoopThread()
        return self._thread.run(work, None)

    def __del__(self) -> None:
        # Not made at all when the constructor refused.
        if (link := getattr(self, "link", None)) is not None:
            link.abandon()


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker-link", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """Run something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def stop(self) -> None:
        """End loop and thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        with contextlib.suppress(RuntimeError):
            self._loop.close()
