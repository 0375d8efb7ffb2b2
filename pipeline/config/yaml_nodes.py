"""YAML as plain data plus the line of every key; nothing constructed but JSON types.

PyYAML composes the nodes. Its own constructor is not used, because it reads `1e-3` as a string,
`no` as False, keeps the last of duplicate keys and follows aliases without a bound.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipeline.errors import Hint, UsageError

Path = tuple[str, ...]
MAX_BYTES = 1 << 20
MAX_DEPTH = 20

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = {
    ".nan": float("nan"),
    ".inf": float("inf"),
    "+.inf": float("inf"),
    "-.inf": float("-inf"),
}
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


def scalar(text: str) -> Any:
    """Value of an unquoted YAML 1.2 scalar: null, bool, int, float or str.

    >>> scalar("1e-3"), scalar("no"), scalar("007")
    (0.001, 'no', 7)
    """
    lowered = text.lower()
    if lowered in _WORDS:
        return _WORDS[lowered]
    if _INT.match(text):
        return int(text) if len(text) < 20 else float(text)  # int() raises from 4,301 digits on
    if _FLOAT.match(text):
        return float(text)
    return _SPECIAL.get(lowered, text)


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[Path, int]]:
    """Parse one YAML mapping.

    Args:
        text: the document.
        name: the file's name, for messages.
    Returns:
        the data, and the 1-based line of every dotted path.
    Raises:
        UsageError: not YAML, not a mapping, duplicate keys, aliases, tags, or nested too deeply.
    """
    if len(text) > MAX_BYTES:
        raise UsageError(
            f"{name}: a config of {len(text)} characters is not a config",
            hint="pass a YAML file below 1 MB",
        )
    try:
        _refuse_tricks(text, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable as YAML"
        raise UsageError(
            f"{name}{where}: {problem}",
            hint=Hint.command("config", "show", "CONFIG", says="shows a valid one"),
        ) from None
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply", hint=f"at most {MAX_DEPTH} levels") from None
    if root is None:
        return {}, {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            f"{name}: expected `key: value` lines at the top", hint="see configs/quickstart.yaml"
        )
    lines: dict[Path, int] = {}
    problems: list[str] = []
    data = _value(root, (), name, lines, problems)
    if problems:
        raise UsageError(
            problems[0], hint="fix the file and type the command again", details=problems[1:]
        )
    return data, lines


def dump(data: dict[str, Any]) -> str:
    """YAML that `parse` reads back to the same data: text such as `1e-3` is quoted, which
    PyYAML alone does not do.
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes text with a YAML line break (NEL, LS and PS too) in double quotes: escaped, not
    folded.
    """


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if any(mark in value for mark in "\r\n\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _refuse_tricks(text: str, name: str) -> None:
    """Aliases, tags and depth, seen in the events before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(
                f"{where}: aliases (*{event.anchor}) are not allowed", hint="write the value out"
            )
        if tag := getattr(event, "tag", None):
            raise UsageError(f"{where}: the tag {tag} is not allowed", hint="write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > MAX_DEPTH:
            raise UsageError(f"{where}: nested too deeply", hint=f"at most {MAX_DEPTH} levels")


def _value(
    node: yaml.Node, path: Path, name: str, lines: dict[Path, int], problems: list[str]
) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(getattr(key_node, "value", ""))
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"{name}:{key_line}: a key must be a word")
                continue
            if key in result:
                first = lines[(*path, key)]
                problems.append(
                    f"{name}:{key_line}: {'.'.join((*path, key))}: duplicate key, first given on "
                    f"line {first}"
                )
                continue
            lines[(*path, key)] = key_line
            result[key] = _value(value_node, (*path, key), name, lines, problems)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(item, (*path, str(i)), name, lines, problems)
            for i, item in enumerate(node.value)
        ]
    assert isinstance(node, yaml.ScalarNode)
    return scalar(node.value) if node.style is None else node.value  # quoted is text
