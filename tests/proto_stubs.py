"""Writes the Python modules of the wire's messages: `python tests/proto_stubs.py`.

The compiler's own modules refuse to load under another major release of `protobuf` than the compiler's. So only its
descriptor and its type stubs are taken; the modules around them are made here, on what every release since 3.20 has.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "cpex" / "framework" / "external" / "proto"
PACKAGE = "cpex.framework.external.proto"
NAME = "plugin_service"
COMMAND = "python tests/proto_stubs.py"

_MESSAGES = '''"""Made from `plugin_service.proto`; run `{command}` instead of editing it."""

from google.protobuf import descriptor_pool, struct_pb2  # noqa: F401 - the descriptor below refers to its messages
from google.protobuf.internal import builder

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(
{descriptor}
)
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "{name}_pb2", globals())
'''

_SERVICES_HEAD = '''"""Made from `plugin_service.proto`; run `{command}` instead of editing it."""

from __future__ import annotations

from typing import Any

import grpc

from {package} import {name}_pb2 as messages
'''

_STUB = '''

class {service}Stub:
    """Asks `{full_name}` over a channel."""

    def __init__(self, channel: Any) -> None:
{stubs}


class {service}Servicer:
    """Answers `{full_name}`; to be derived from."""
{methods}

def add_{service}Servicer_to_server(servicer: {service}Servicer, server: Any) -> None:
    """Let a server answer `{full_name}`."""
    handlers: dict[str, Any] = {{
{handlers}
    }}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("{full_name}", handlers),))
'''


def generated() -> dict[str, str]:
    """`{file name: text}` of the modules, as the `.proto` has them now."""
    import grpc_tools
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    include = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        status = protoc.main(
            [
                "protoc",
                f"-I{FOLDER}",
                f"-I{include}",
                f"--descriptor_set_out={folder}/set",
                f"--pyi_out={folder}",
                f"{NAME}.proto",
            ]
        )
        if status:
            raise SystemExit(f"{NAME}.proto cannot be compiled")
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(folder, "set").read_bytes())
        stubs = Path(folder, f"{NAME}_pb2.pyi").read_text(encoding="utf-8")
    (file,) = files.file
    return {
        f"{NAME}_pb2.py": _MESSAGES.format(command=COMMAND, name=NAME, descriptor=_literal(file.SerializeToString())),
        f"{NAME}_pb2.pyi": stubs,
        f"{NAME}_pb2_grpc.py": _services(file),
    }


def _literal(data: bytes) -> str:
    return "\n".join(f"    {data[start : start + 64]!r}" for start in range(0, len(data), 64))


def _services(file: object) -> str:
    text = _SERVICES_HEAD.format(command=COMMAND, package=PACKAGE, name=NAME)
    for service in file.service:
        full_name = f"{file.package}.{service.name}"
        rows = [(each.name, each.input_type.split(".")[-1], each.output_type.split(".")[-1]) for each in service.method]
        text += _STUB.format(
            service=service.name,
            full_name=full_name,
            stubs="\n".join(
                f'        self.{name} = channel.unary_unary(\n            "/{full_name}/{name}",\n'
                f"            request_serializer=messages.{asked}.SerializeToString,\n"
                f"            response_deserializer=messages.{answer}.FromString,\n        )"
                for name, asked, answer in rows
            ),
            methods="".join(
                f"\n    async def {name}(self, request: messages.{asked}, context: Any) -> messages.{answer}:\n"
                f'        """Answer one question."""\n        raise NotImplementedError\n'
                for name, asked, answer in rows
            ),
            handlers="\n".join(
                f'        "{name}": grpc.unary_unary_rpc_method_handler(\n            servicer.{name},\n'
                f"            request_deserializer=messages.{asked}.FromString,\n"
                f"            response_serializer=messages.{answer}.SerializeToString,\n        ),"
                for name, asked, answer in rows
            ),
        )
    return text


def main() -> None:
    """Rewrite every module that is out of date."""
    for name, text in generated().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
