"""The tables of docs/servers.md: how each kind of server is found, and where its key stands."""

import os
from unittest.mock import patch
from urllib.parse import urlsplit

from llm_localrun.models import default_key_alias
from llm_localrun.servers.base import (
    GENERIC_KIND,
    CallForcing,
    Server,
    server_class,
    server_kinds,
)
from llm_localrun.servers.msty import PORT_OWNERS
from llm_localrun.servers.openai_compatible import OpenAICompatible
from tests.support.generated.markdown import table


def servers_table() -> str:
    """Markdown: each kind of server, how it is found, what it supports, and its versions."""
    kinds = [*product_kinds(), server_class(GENERIC_KIND)]
    rows = [
        (*_title_and_ports(cls), _also_found_by(cls), _supports(cls), cls.checked) for cls in kinds
    ]
    heads = ("server", "ports", "also found by", "supports", "versions run or read")
    return table(heads, rows)


def kinds_table() -> str:
    """Markdown: how each kind of server is called in commands, and where its key may stand."""
    kinds = (cls for cls in server_kinds().values() if cls.is_product or cls.kind == GENERIC_KIND)
    rows = (
        (
            _title_and_ports(cls)[0],
            f"`{cls.kind}`",
            f"`{default_key_alias(cls.kind)}`",
            ", ".join(f"`{name}`" for name in cls.key_variables),
        )
        for cls in kinds
    )
    heads = ("server", "kind", "key in `llm keys`", "or in the variable")
    return table(heads, rows)


def _title_and_ports(cls: type[Server]) -> tuple[str, str]:
    if cls.kind == GENERIC_KIND:
        return "any other server with OpenAI's API", "any of these"
    return cls.title, _ports(cls)


def _supports(cls: type[Server]) -> str:
    """What not every kind supports, in the words that docs/servers.md explains."""
    asks = {
        "schema": cls.accepts_schemas,
        "tool_choice": cls.call_forcing is not CallForcing.NONE,
        "count": _counts(cls),
        "keep_alive": "keep_alive" in cls.options,
        "pull": cls.pull_names is not None,
        "quantize": bool(cls.quantizes_to),
        "delete": cls.can_delete,
    }
    return ", ".join(name for name, has in asks.items() if has)


def _counts(cls: type[Server]) -> bool:
    if not issubclass(cls, OpenAICompatible):
        return False
    return cls.count_tokens is not OpenAICompatible.count_tokens


def product_kinds() -> list[type[Server]]:
    return [cls for cls in server_kinds().values() if cls.is_product]


def _ports(cls: type[Server]) -> str:
    # Neither the variables nor the settings of the machine that writes the table count.
    with patch.dict(os.environ, {"HOME": "/nonexistent"}, clear=True):
        usual = [urlsplit(url).port or 0 for url in cls.addresses()]
    ports = [*cls.shared_ports, *usual]
    owners = (f" ({PORT_OWNERS[port]})" if port in PORT_OWNERS else "" for port in ports)
    return ", ".join(f"{port}{owner}" for port, owner in zip(ports, owners, strict=True))


def _also_found_by(cls: type[Server]) -> str:
    return ", ".join([*(f"`{name}`" for name in cls.url_variables), *cls.found_by])
