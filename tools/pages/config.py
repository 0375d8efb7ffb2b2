"""docs/config.md, from the pydantic models themselves."""

from __future__ import annotations

from typing import Any

from pipeline.config.explain import default_of, section_of, sections, values_of
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
    for path, section in sections("", schema, definitions):
        lines += [f"## {path}", "", " ".join(section["description"].split()), ""]
        lines += _table(f"{path}.", section, definitions)
    return "\n".join(lines)


def _table(prefix: str, section: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{prefix}{name}` | {cell(values_of(described))} | {default_of(described)} "
        f"| {cell(described.get('description', ''))} |"
        for name, described in section["properties"].items()
        if section_of(described, definitions) is None
    ]
    return ["| key | values | default | meaning |", "|---|---|---|---|", *rows, ""]
