"""Load a config: YAML file + `--set KEY=VALUE`, every error reported at once with path, line
and "did you mean".
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config import yaml_nodes
from pipeline.config.schema import Config
from pipeline.config.search import Budget
from pipeline.errors import Hint, Set, UsageError

_SHIPPED = Hint.command("config", "ls", says="lists the shipped configs")


def bundled_configs() -> dict[str, Path]:
    """Configs that travel with the package, by path below `configs/`."""
    folder = Path(str(resources.files("pipeline"))) / "bundled" / "configs"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """The file as given, else the shipped config of that name.

    Raises:
        UsageError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = bundled_configs()
    asked = path.as_posix().removeprefix("./").removeprefix("configs/")
    if asked in shipped:
        return shipped[asked]
    if path.is_dir():
        raise UsageError(f"{name}: a folder, expected a YAML file", hint=_SHIPPED)
    close = difflib.get_close_matches(asked, shipped, n=1)
    meant = f"did you mean configs/{close[0]}? " if close else ""
    raise UsageError(f"{name}: no such config", hint=Hint(meant, _SHIPPED))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `--set` overrides.

    Raises:
        UsageError: anything wrong in the file or the overrides, all problems at once.
    """
    try:
        if (size := path.stat().st_size) > yaml_nodes.MAX_BYTES:
            raise UsageError(
                f"{path}: {size} bytes is no config", hint="pass a YAML file below 1 MB"
            )
        text = path.read_bytes().decode("utf-8")  # whatever the locale; LANG=C is ASCII
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a UTF-8 text file", hint=_SHIPPED) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=_SHIPPED) from None
    data, lines = yaml_nodes.parse(text, str(path))
    return build_config(data, overrides, lines, str(path))


def build_config(
    data: dict[str, Any],
    overrides: Sequence[str] = (),
    lines: dict[tuple[str, ...], int] | None = None,
    name: str = "config",
) -> Config:
    """Validate plain data plus overrides into a Config.

    Raises:
        UsageError: several problems are reported together in `details`.
    """
    set_paths = apply_overrides(data, overrides)
    try:
        # strict pydantic takes no list for a tuple otherwise
        return Config.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems = list(_sentences(error, lines or {}, set_paths, name))
    raise UsageError(
        problems[0],
        hint=Hint.command("config", "schema", says="lists every key with its bounds"),
        details=problems[1:],
    )


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> set[tuple[str, ...]]:
    """Write `a.b=value` items into `data` in place; returns the paths written.

    Raises:
        UsageError: an item without `=`, or a path through something that is no section.
    """
    written = set()
    for item in overrides:
        key, equals, value = item.partition("=")  # the first one: a value may hold more
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise UsageError(
                f"--set {item}: expected KEY=VALUE",
                hint=Hint("for example ", Set("search.trials", 20)),
            )
        node = data
        for part in path[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise UsageError(
                    f"--set {item}: {part} is a value, not a section",
                    hint=Hint.command("config", "schema", says="lists every key"),
                )
            node = child
        node[path[-1]] = _override_value(value)
        written.add(path)
    _drop_rival_budgets(data, written)
    return written


def _override_value(text: str) -> Any:
    if text[:1] in "[{\"'":  # of no text too, which is null as in a file
        try:
            return yaml_nodes.parse(f"value: {text}", "--set")[0]["value"]
        except UsageError:
            return text
    return yaml_nodes.scalar(text)


def _drop_rival_budgets(data: dict[str, Any], written: set[tuple[str, ...]]) -> None:
    """`--set search.budget.params=0.4` replaces the file's `macs: 0.5`; two given by --set stay
    and are refused.
    """
    chosen = {path[2] for path in written if path[:2] == ("search", "budget") and len(path) == 3}
    budget = data.get("search", {}).get("budget") if isinstance(data.get("search"), dict) else None
    if chosen and isinstance(budget, dict):
        for key in Budget.model_fields:
            if key not in chosen and chosen != {"of"}:
                budget.pop(key, None)


def _sentences(
    error: ValidationError,
    lines: dict[tuple[str, ...], int],
    set_paths: set[tuple[str, ...]],
    name: str,
) -> Iterable[str]:
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"])
        dotted = ".".join(path)
        if any(path[: len(p)] == p or p[: len(path)] == path for p in set_paths):
            where = "--set"
        else:
            line = next(
                # what is missing has no line: that of the section
                (lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines),
                None,
            )
            where = f"{name}:{line}" if line else name
        if item["type"] == "extra_forbidden":
            near = meant(path)
            yield f"{where}: {dotted}: unknown key" + (f", did you mean {near}?" if near else "")
        else:
            value = "" if isinstance(item["input"], (dict, list)) else f", got {item['input']!r}"
            message = item["msg"].removeprefix("Value error, ")
            yield f"{where}: {dotted or 'config'}: {message[0].lower() + message[1:]}{value}"


def meant(path: tuple[str, ...]) -> str:
    """The key that an unknown one stands for: a misspelt sibling, the same word elsewhere, or
    anything like it.
    """
    siblings = known_keys(path[:-1])
    here = [
        ".".join((*path[:-1], key))
        for key in difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)
    ]
    alike = bool(difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.75))
    elsewhere = [p for p in all_paths() if p.split(".")[-1] == path[-1]]
    return next(iter(here + elsewhere if alike else elsewhere + here), "")


def _section_at(path: tuple[str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = Config
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return None
        model = field.annotation
    return model


def known_keys(path: tuple[str, ...]) -> list[str]:
    """Keys of the section at `path`; empty when there is no such section."""
    model = _section_at(path)
    return list(model.model_fields) if model else []


def all_paths(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the config, sections left out."""
    paths: list[str] = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            paths += all_paths(field.annotation, f"{prefix}{key}.")
        else:
            paths.append(prefix + key)
    return paths


def schema_text() -> str:
    """JSON Schema of the config, as shipped in configs/schema.json."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "rlp config"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
