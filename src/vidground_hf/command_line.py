"""The command line of a run, as a reader may repeat it: without secrets and without folders of this machine.

Parses nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import click

# What would name a place on this machine, or does not change the result.
_PLACES = {"output": "OUT", "media_root": "MEDIA"}
_LEFT_OUT = {"as_json", "dry_run", "concurrency", "max_requests"}


def describe_command(context: click.Context, changed: Mapping[str, Any]) -> str:
    """Writes the command that is running, with the options that were given.

    Local paths keep their last two parts, the addresses of servers become `URL`.

    Args:
        context (`click.Context`): of the command.
        changed (`Mapping[str, Any]`): options to print with another value than was given.

    Returns:
        `str`: one line for a shell.
    """
    words = ["vidground", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        value = changed.get(name, context.params.get(name) if given else None)
        if value is None or name in _LEFT_OUT:
            continue
        values = value if isinstance(value, (tuple, list)) else [value]
        option = [] if isinstance(parameter, click.Argument) else [parameter.opts[0]]
        if value is True:
            words += option
        else:
            words += [word for one in values for word in [*option, _PLACES.get(name) or hide_places(str(one))]]
    return shlex.join(words)


def hide_places(text: str) -> str:
    """Cuts a path to its last two parts and a server's address to `URL`.

    Example:
        >>> hide_places("/home/me/data/nextqa/val.csv"), hide_places("endpoint:qwen@http://me:key@10.0.0.1/v1")
        ('nextqa/val.csv', 'endpoint:qwen@URL')
    """
    kind, separator, rest = text.partition(":")
    if "://" in text:
        before = re.sub(r"@?\w+://.*", "", text)
        model = re.sub(r"^(endpoint:)?/.*/", r"\1", before)
        return f"{model}@URL" if before else "URL"
    if separator and kind.isalpha():
        return f"{kind}:{hide_places(rest)}"
    path = PurePath(text)
    is_place = path.is_absolute() or text.startswith(("~", ".")) or len(path.parts) > 2
    return "/".join(part for part in path.parts[-2:] if part not in ("/", "..", "~")) if is_place else text
