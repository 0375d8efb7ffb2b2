"""docs/config.md, from the pydantic models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.schema import Config
from tools.pages.text import NOTE, cell

CONFIG_HEAD = f"""# Settings

{NOTE}

Generated from `pipeline/config/`. A config is a YAML file with these sections; every key
has a default, unknown keys are errors, and `--set section.key=value` overrides one on the command
line. `rlp config show CONFIG` prints a config with every default filled in;
`configs/schema.json` is the JSON Schema for editors.
"""


def page() -> str:
    """The whole page."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    lines = [CONFIG_HEAD, "## At the top", "", *_table("", schema, definitions)]
    for path, section in _sections("", schema, definitions):
        lines += [f"## {path}", "", " ".join(section["description"].split()), ""]
        lines += _table(f"{path}.", section, definitions)
    return "\n".join(lines)


def _sections(
    prefix: str, section: dict[str, Any], definitions: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, described in section["properties"].items():
        inner = _section(described, definitions)
        if inner is not None:
            yield prefix + name, inner
            yield from _sections(f"{prefix}{name}.", inner, definitions)


def _section(described: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    reference = described.get("$ref", "")
    found = definitions.get(reference.rpartition("/")[2])
    return found if found and found.get("type") == "object" else None


def _table(prefix: str, section: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{prefix}{name}` | {cell(_type(described))} | {_default(described)} "
        f"| {cell(described.get('description', ''))} |"
        for name, described in section["properties"].items()
        if _section(described, definitions) is None
    ]
    return ["| key | values | default | meaning |", "|---|---|---|---|", *rows, ""]


def _default(described: dict[str, Any]) -> str:
    value = described.get("default")
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, dict)):
        return f"`{value}`" if value else "empty"
    return f"`{value}`"


def _type(described: dict[str, Any]) -> str:
    """What may stand there, as a phrase: "number > 0 and < 1", "`cosine` or `linear`"."""
    if "anyOf" in described:
        parts = [_type(part) for part in described["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    values = described.get("enum", [described["const"]] if "const" in described else None)
    if values:
        return ", ".join(f"`{value}`" for value in values)
    kind = {"integer": "whole number", "boolean": "`true` or `false`", "string": "text"}
    word = kind.get(described.get("type", ""), described.get("type", ""))
    if word == "array":
        inner = described.get("items") or (described.get("prefixItems") or [{}])[0]
        return f"list of: {_type(inner)}"
    return " ".join(
        filter(None, [{"object": "keys and values"}.get(word, word), _bounds(described)])
    )


def _bounds(described: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " and ".join(f"{s} {described[key]}" for key, s in signs.items() if key in described)
