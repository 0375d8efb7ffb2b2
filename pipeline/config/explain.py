"""What a key of the config means and takes, in words, from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.load import meant
from pipeline.config.schema import Config
from pipeline.errors import Hint, UsageError


def explain_keys(key: str) -> list[dict[str, str]]:
    """A key, or all keys of a section: `key`, `meaning`, `values` and `default` each.

    Raises:
        UsageError: there is no such key.
    """
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    found = []
    for path, section in [("", schema), *sections("", schema, definitions)]:
        for name, described in section["properties"].items():
            whole = f"{path}.{name}" if path else name
            if section_of(described, definitions) is None and key in (whole, path):
                found.append(
                    {
                        "key": whole,
                        "meaning": " ".join(described.get("description", "").split()),
                        "values": values_of(described).replace("`", ""),
                        "default": default_of(described).strip("`"),
                    }
                )
    if not found:
        near = meant(tuple(key.split(".")))
        hint = Hint.command("config", "explain", near) if near else Hint.command("config", "schema")
        raise UsageError(f"{key}: no such key", hint=hint)
    return found


def sections(
    prefix: str, section: dict[str, Any], definitions: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sections below one of the JSON Schema, by their path."""
    for name, described in section["properties"].items():
        inner = section_of(described, definitions)
        if inner is not None:
            yield prefix + name, inner
            yield from sections(f"{prefix}{name}.", inner, definitions)


def section_of(described: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    """What a reference to a section refers to; None for a key."""
    reference = described.get("$ref", "")
    found = definitions.get(reference.rpartition("/")[2])
    return found if found and found.get("type") == "object" else None


def default_of(described: dict[str, Any]) -> str:
    """The default as it is typed; empty without one."""
    value = described.get("default")
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, dict)):
        return f"`{value}`" if value else "empty"
    return f"`{value}`"


def values_of(described: dict[str, Any]) -> str:
    """What may stand there, as a phrase: "number > 0 and < 1", "`cosine` or `linear`"."""
    if "anyOf" in described:
        parts = [values_of(part) for part in described["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    values = described.get("enum", [described["const"]] if "const" in described else None)
    if values:
        return ", ".join(f"`{value}`" for value in values)
    kind = {"integer": "whole number", "boolean": "`true` or `false`", "string": "text"}
    word = kind.get(described.get("type", ""), described.get("type", ""))
    if word == "array":
        inner = described.get("items") or (described.get("prefixItems") or [{}])[0]
        return f"list of: {values_of(inner)}"
    return " ".join(
        filter(None, [{"object": "keys and values"}.get(word, word), _bounds(described)])
    )


def _bounds(described: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " and ".join(f"{s} {described[key]}" for key, s in signs.items() if key in described)
