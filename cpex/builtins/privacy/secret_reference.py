"""A secret in a configuration: itself, or where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr

__all__ = ["MIN_SECRET", "SecretReference"]

MIN_SECRET = 16
"""Characters of a secret that cannot be guessed."""


def _resolve(value: Any) -> Any:
    """The secret that `{env: NAME}` or `{file: PATH}` refers to; anything else is the secret itself.

    SECURITY: messages name the place, never what is there.
    """
    if isinstance(value, dict):
        if set(value) == {"env"} and isinstance(value["env"], str):
            value = _from_environment(value["env"])
        elif set(value) == {"file"} and isinstance(value["file"], str):
            value = _from_file(value["file"])
        else:
            raise ValueError("a reference to a secret has one key: write {env: NAME} or {file: PATH}")
    if isinstance(value, str) and len(value) < MIN_SECRET:
        raise ValueError(f"the secret is shorter than {MIN_SECRET} characters; make one with `openssl rand -hex 32`")
    return value


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"the environment variable `{name}` is not set or empty; set it before the start")
    return value


def _from_file(path: str) -> str:
    try:
        # What editors and `echo` put at the end of a file is not a part of the secret.
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the file `{path}` cannot be read ({type(error).__name__}); mount the secret there as UTF-8 text"
        ) from None


SecretReference = Annotated[SecretStr, BeforeValidator(_resolve)]
"""At least 16 characters: a text, `{env: NAME}` for an environment variable, or `{file: PATH}` for a mounted secret."""
