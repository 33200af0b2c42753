"""Which URLs the framework is willing to connect to."""

import pytest

from cpex.framework.settings import settings
from cpex.framework.validators import SecurityValidator, validate_plugin_url


@pytest.fixture(autouse=True)
def protection_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLUGINS_SSRF_PROTECTION_ENABLED", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def refusal(url):
    with pytest.raises(ValueError) as caught:
        validate_plugin_url(url)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/mcp",
        "https://host.example/a?b=c d",
        "HTTP://HOST/",
        "ws://h/x",
        "wss://h/x",
        "http://h:/",
        "http://8.8.8.8/",
        "http://100.64.0.1/",
        "http://172.15.0.1/",
        "http://host/?x=<b>",
        "http://10.example.com/",
    ],
)
def test_accepted_urls_come_back_unchanged(url):
    assert validate_plugin_url(url) == url


@pytest.mark.parametrize(
    ("url", "fragment"),
    [
        ("", "URL cannot be empty"),
        (None, "URL cannot be empty"),
        ("http://h/" + "x" * 2040, "is longer than 2048 characters"),
        ("ftp://h/", "must start with one of: http://, https://, ws://, wss://"),
        (" http://h/", "must start with one of"),
        ("http://h/?next=JavaScript:x", "contains an unsupported protocol"),
        ("http://h/data:x", "contains an unsupported protocol"),
        ("http://[::1]/", "IPv6"),
        ("http://h/\r\nX: y", "contains line breaks"),
        ("http://h /a", "contains spaces"),
        ("http://", "is not a valid URL"),
        ("http:///path", "is not a valid URL"),
        ("http://user@h/", "contains credentials"),
        ("http://:pw@h/", "contains credentials"),
        ("http://h:0/", "invalid port"),
        ("http://h:65536/", "invalid port"),
        ("http://h:abc/", "invalid port"),
        ("http://0.0.0.0/", "invalid IP address"),
        ("http://0/", "invalid IP address"),
        ("http://h/<SCRIPT>", "HTML tags"),
        ("http://h/?q=</iframe", "HTML tags"),
        ("http://h/'onclick=x", "script patterns"),
        ("http://h/?q= onload = x", "script patterns"),
    ],
)
def test_refused_urls_say_why(url, fragment):
    assert fragment in refusal(url)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "192.168.1.1.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
    ],
)
def test_private_addresses_are_refused_however_they_are_written(host):
    assert "blocked by SSRF" in refusal(f"http://{host}/")


@pytest.mark.parametrize(
    ("host", "help"), [("127.1", "write `localhost`, or set PLUGINS_"), ("10.0.0.1", "there set PLUGINS_")]
)
def test_who_means_this_machine_is_told_the_name_that_is_taken(host, help):
    assert help in refusal(f"http://{host}/")


def test_protection_can_be_switched_off_but_not_for_the_address_that_is_none(monkeypatch):
    monkeypatch.setenv("PLUGINS_SSRF_PROTECTION_ENABLED", "false")
    settings.cache_clear()

    assert validate_plugin_url("http://127.0.0.1:8000/") == "http://127.0.0.1:8000/"
    assert "invalid IP address" in refusal("http://0.0.0.0/")


def test_messages_call_the_value_what_the_caller_calls_it():
    with pytest.raises(ValueError, match=r"^Git repository URL cannot be empty$"):
        SecurityValidator.validate_url("", "Git repository URL")
