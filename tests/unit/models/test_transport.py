"""What the sections about transports accept, refuse and take from the environment."""

import logging

import pytest
from pydantic import ValidationError

from cpex.framework.models import (
    GRPCClientConfig,
    GRPCClientTLSConfig,
    GRPCServerConfig,
    GRPCServerTLSConfig,
    MCPClientConfig,
    MCPClientTLSConfig,
    MCPServerConfig,
    MCPServerTLSConfig,
    UnixSocketClientConfig,
    UnixSocketServerConfig,
)
from cpex.framework.settings import settings

URL = "http://plugins.example/mcp"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Set variables in an otherwise empty environment, with no `.env` in sight."""
    monkeypatch.chdir(tmp_path)

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    settings.cache_clear()
    yield set_variables
    settings.cache_clear()


@pytest.fixture
def pem(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_text("certificate")
    return str(file)


def refusal(cls, **values):
    with pytest.raises(ValidationError) as caught:
        cls(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({"proto": "STDIO", "url": URL}, "url is only valid for HTTP and SSE transports"),
        ({"proto": "SSE", "url": URL, "cmd": ["a"]}, "only valid for STDIO transport"),
        ({"proto": "SSE", "url": URL, "cwd": "/"}, "only valid for STDIO transport"),
        ({"proto": "STDIO", "cmd": ["a"], "tls": {}}, "TLS configuration is only valid for HTTP and SSE transports"),
        ({"proto": "STDIO", "cmd": []}, "cmd must be a non-empty list"),
        ({"proto": "STDIO", "cmd": ["a", " "]}, "each word of cmd must be a non-empty string"),
        ({"proto": "STDIO", "cmd": ["a"], "env": {}}, "env must be a non-empty mapping"),
        ({"proto": "STDIO", "cmd": ["a"], "env": {" ": "x"}}, "each name in env must be a non-empty string"),
        ({"proto": "STDIO", "cmd": ["a"], "cwd": "/no/such/folder"}, "does not exist or is not a directory"),
        ({"proto": "STDIO", "script": "/no/such/script.py"}, "script /no/such/script.py does not exist"),
        ({"proto": "STREAMABLEHTTP", "url": "http://10.0.0.1/"}, "blocked by SSRF"),
        ({"proto": "stdio", "cmd": ["a"]}, "proto"),
    ],
)
def test_mcp_settings_that_do_not_fit_are_refused(values, fragment):
    assert fragment in refusal(MCPClientConfig, **values)


def test_a_unix_socket_carries_streamable_http_only_and_no_tls(tmp_path):
    socket = str(tmp_path / "p.sock")

    assert "uds is only valid for STREAMABLEHTTP" in refusal(MCPClientConfig, proto="SSE", url=URL, uds=socket)
    assert "TLS configuration is not supported for Unix domain sockets" in refusal(
        MCPClientConfig, proto="STREAMABLEHTTP", url=URL, uds=socket, tls={}
    )
    assert MCPClientConfig(proto="STREAMABLEHTTP", url=URL, uds=socket).uds == socket


def test_an_absolute_script_must_be_python_shell_or_executable(tmp_path):
    python, program, text = tmp_path / "a.py", tmp_path / "program", tmp_path / "a.txt"
    for file in (python, program, text):
        file.write_text("")
    program.chmod(0o755)

    assert MCPClientConfig(proto="STDIO", script=str(python)).script == str(python)
    assert MCPClientConfig(proto="STDIO", script=str(program)).script == str(program)
    assert "must be a .py or .sh file, or executable" in refusal(MCPClientConfig, proto="STDIO", script=str(text))
    assert MCPClientConfig(proto="STDIO", script="relative/later.py").script == "relative/later.py"


def test_a_working_folder_is_kept_resolved(tmp_path):
    config = MCPClientConfig(proto="STDIO", cmd=["a"], cwd=f"{tmp_path}/../{tmp_path.name}")

    assert config.cwd == str(tmp_path.resolve())


@pytest.mark.parametrize("cls", [MCPServerConfig, GRPCServerConfig, GRPCClientConfig])
def test_socket_paths_are_checked_alike_everywhere(cls, tmp_path):
    assert "uds must be a non-empty string" in refusal(cls, uds=" ")
    assert "uds parent directory does not exist" in refusal(cls, uds=str(tmp_path / "no" / "p.sock"))
    assert "not supported for Unix domain sockets" in refusal(cls, uds=str(tmp_path / "p.sock"), tls={})
    assert cls(uds=f"{tmp_path}/./p.sock").uds == str((tmp_path / "p.sock").resolve())


@pytest.mark.conformance("E16.parent")
def test_a_socket_in_a_folder_where_others_may_replace_it_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    text = refusal(GRPCClientConfig, uds=str(tmp_path / "p.sock"))
    assert f"uds: {tmp_path} is a folder that every user of this machine may write to" in text
    assert f"chmod o-w {tmp_path}" in text


def test_a_socket_in_a_folder_like_tmp_is_warned_about(tmp_path, caplog):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o1777)

    with caplog.at_level(logging.WARNING):
        MCPServerConfig(uds=str(folder / "p.sock"))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "world-writable" in caplog.text


def test_tls_files_must_exist_and_a_key_needs_its_certificate(pem, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert "TLS file path does not exist: /no/such.pem" in refusal(MCPClientTLSConfig, certfile="/no/such.pem")
    assert "keyfile requires certfile" in refusal(GRPCClientTLSConfig, keyfile=pem)
    assert MCPClientTLSConfig(certfile="~/cert.pem", keyfile=pem).certfile == pem


def test_a_key_password_is_not_shown():
    assert "secret" not in repr(MCPServerTLSConfig(keyfile_password="secret"))


def test_client_certificate_words_are_read_in_any_case():
    assert GRPCServerTLSConfig(client_auth="NONE").client_auth == "none"
    assert "client_auth must be one of none, optional, require; got 'x'" in refusal(
        GRPCServerTLSConfig, client_auth="x"
    )


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({}, "must have either 'target' or 'uds'"),
        ({"target": "h:1", "uds": "/p.sock"}, "cannot have both 'target' and 'uds'"),
        ({"target": ""}, "gRPC target cannot be empty"),
        ({"target": "host"}, "gRPC target must be in host:port format; got 'host'"),
    ],
)
def test_grpc_needs_one_address(values, fragment):
    assert fragment in refusal(GRPCClientConfig, **values)


def test_grpc_addresses_are_written_as_the_library_reads_them(tmp_path):
    socket = tmp_path / "p.sock"

    assert GRPCClientConfig(target="host:1").get_target() == "host:1"
    assert GRPCClientConfig(uds=str(socket)).get_target() == f"unix://{socket}"
    assert GRPCServerConfig().get_bind_address() == "127.0.0.1:50051"
    assert GRPCServerConfig(uds=str(socket)).get_bind_address() == f"unix://{socket}"


def test_a_plain_socket_needs_an_absolute_path():
    assert "Unix socket path cannot be empty" in refusal(UnixSocketClientConfig, path="")
    assert "Unix socket path must be absolute; got 'p.sock'" in refusal(UnixSocketClientConfig, path="p.sock")
    assert UnixSocketClientConfig(path="/no/such/folder/p.sock").timeout == 30.0


@pytest.mark.parametrize(
    "cls",
    [
        MCPClientTLSConfig,
        MCPServerTLSConfig,
        GRPCClientTLSConfig,
        GRPCServerTLSConfig,
        MCPServerConfig,
        GRPCServerConfig,
        UnixSocketServerConfig,
    ],
)
def test_an_empty_environment_gives_no_section(cls, environment):
    assert cls.from_env() is None


def test_client_tls_comes_from_its_variables(environment, pem):
    environment(
        PLUGINS_CLIENT_MTLS_CERTFILE=pem,
        PLUGINS_CLIENT_MTLS_KEYFILE=pem,
        PLUGINS_CLIENT_MTLS_KEYFILE_PASSWORD="pw",
        PLUGINS_CLIENT_MTLS_VERIFY="false",
        PLUGINS_CLIENT_MTLS_CA_BUNDLE="",
        PLUGINS_GRPC_CLIENT_MTLS_CA_BUNDLE=pem,
    )

    assert MCPClientTLSConfig.from_env() == MCPClientTLSConfig(
        certfile=pem, keyfile=pem, keyfile_password="pw", verify=False
    )
    assert GRPCClientTLSConfig.from_env() == GRPCClientTLSConfig(ca_bundle=pem)


def test_server_addresses_come_from_their_variables(environment, tmp_path):
    environment(
        PLUGINS_SERVER_HOST="localhost",
        PLUGINS_SERVER_PORT="0",
        PLUGINS_GRPC_SERVER_UDS=str(tmp_path / "p.sock"),
        PLUGINS_UNIX_SOCKET_PATH="/run/p.sock",
    )

    assert MCPServerConfig.from_env() == MCPServerConfig(host="localhost", port=0)
    assert GRPCServerConfig.from_env() == GRPCServerConfig(uds=str(tmp_path / "p.sock"))
    assert UnixSocketServerConfig.from_env() == UnixSocketServerConfig(path="/run/p.sock")


def test_server_tls_counts_only_when_it_is_enabled(environment, pem):
    environment(PLUGINS_SERVER_SSL_CERTFILE=pem, PLUGINS_SERVER_SSL_CERT_REQS="0", PLUGINS_SERVER_PORT="9")
    assert MCPServerConfig.from_env().tls is None

    environment(PLUGINS_SERVER_SSL_ENABLED="true")
    assert MCPServerConfig.from_env().tls == MCPServerTLSConfig(certfile=pem, ssl_cert_reqs=0)

    environment(PLUGINS_GRPC_SERVER_SSL_ENABLED="true", PLUGINS_GRPC_SERVER_SSL_CLIENT_AUTH="Optional")
    assert GRPCServerConfig.from_env().tls == GRPCServerTLSConfig(client_auth="optional")


@pytest.mark.parametrize(
    ("cls", "prefix"), [(MCPServerConfig, "PLUGINS_SERVER"), (GRPCServerConfig, "PLUGINS_GRPC_SERVER")]
)
def test_tls_without_a_certificate_never_becomes_a_server_in_the_clear(cls, prefix, environment):
    environment(**{f"{prefix}_SSL_ENABLED": "true", f"{prefix}_PORT": "9"})

    with pytest.raises(ValueError, match=f"{prefix}_SSL_ENABLED is set, but there is no certificate"):
        cls.from_env()
