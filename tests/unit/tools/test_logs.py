from __future__ import annotations

import logging

import pytest

from cpex.tools.logs import logs_to_stderr

logger = logging.getLogger("t_logs")


def failing() -> None:
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        logger.exception("it failed")


def test_the_first_messages_of_a_kind_are_shown_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_to_stderr():
        for number in range(5):
            logger.warning("number %d", number)
        logger.info("nothing of interest")
        failing()
    assert capsys.readouterr().err == (
        "warning: number 0\nwarning: number 1\nwarning: number 2\nerror: it failed\n"
        "note: 2 more messages like these; `--verbose` shows all\n"
    )


def test_a_command_can_silence_what_it_tells_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_to_stderr() as printer:
        printer.thresholds["t_logs"] = logging.ERROR
        logger.warning("a denial")
        logger.error("a failure")
    assert capsys.readouterr().err == "error: a failure\n"


def test_verbose_shows_everything_with_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_to_stderr(verbose=True) as printer:
        printer.thresholds["t_logs"] = logging.CRITICAL
        for number in range(5):
            logger.warning("number %d", number)
        failing()
    err = capsys.readouterr().err
    assert err.count("warning: number") == 5
    assert "RuntimeError: inside" in err


def test_nothing_is_printed_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_to_stderr():
        pass
    logger.warning("late")
    assert "late" not in capsys.readouterr().err
