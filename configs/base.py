"""The base of every config, and the one loader: YAML, then `key=value` overrides, then strict validation.

A YAML file holds only what differs from the defaults. A group of keys may start from a preset: in

    data:
      include: configs/data/uni_stg.yaml
      source: {parts: {refcoco: {weight: 0}}}

all keys of that file are taken, and the group's own ones, here a single weight, take the place of the file's. An unknown key is an error that names the dotted key and the
nearest valid one; so is a value out of bounds.
"""

import difflib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A config file or an override cannot be used; the message names the file, the dotted key and what is expected."""


class Config(BaseModel):
    """Base of every config: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


C = TypeVar("C", bound=Config)


def load_config(
    schema: type[C], path: Path | str, overrides: typing.Sequence[str] = (), *, section: str | None = None
) -> C:
    """Read `path`, apply overrides such as `optim.learning_rate=1e-5`, validate against `schema`.

    `section` takes one group of keys of the file, such as `data`. Raises ConfigError naming file and dotted key.
    """
    presets: list[str] = []
    tree = _with_presets(_read_yaml(Path(path)), (str(path),), presets)
    for override in overrides:
        apply_override(tree, override)
    origin = " with ".join([str(path), *presets])
    if section is None:
        return parse_config(schema, tree, origin=origin)
    return parse_config(schema, tree.get(section, {}), origin=f"{origin}, section {section}")


def config_files(path: Path) -> list[Path]:
    """A config file and all that it includes. Raises ConfigError."""
    presets: list[str] = []
    _with_presets(_read_yaml(path), (str(path),), presets)
    return [path, *map(Path, presets)]


def parse_config(schema: type[C], tree: dict[str, Any], *, origin: str) -> C:
    """Validate a nested dict; `origin` names where it came from in the error message."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(schema, dict(detail)) for detail in error.errors(include_url=False)]
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(tree).__name__}")
    return tree


def _with_presets(tree: dict[str, Any], files: tuple[str, ...], presets: list[str]) -> dict[str, Any]:
    """The tree with every `include: FILE`, a path from the working directory, replaced by what the file holds.

    files: those that led here, outermost first. presets: gets the names of all that are included.
    """
    groups = {key: value for key, value in tree.items() if isinstance(value, dict)}
    own = tree | {key: _with_presets(group, files, presets) for key, group in groups.items()}
    if "include" not in own:
        return own
    name = own.pop("include")
    chain = " includes ".join([*files, str(name)])
    if not isinstance(name, str):
        raise ConfigError(f"{chain}: expected the path of a YAML file")
    if name in files:
        raise ConfigError(f"{chain}: a file cannot include itself")
    if not Path(name).is_file():
        raise ConfigError(f"{chain}: no such config file")
    presets.append(name)
    return _merged(_with_presets(_read_yaml(Path(name)), (*files, name), presets), own)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Groups of keys are merged key by key; any other value of `over` takes the place of that of `base`."""
    merged = base | over
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(base[key], over[key])
    return merged


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in a nested dict; the value is YAML. Raises ConfigError."""
    dotted, separator, value = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"override {override!r}: expected key=value, for example optim.learning_rate=1e-5")
    *parents, leaf = dotted.split(".")
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {key!r} is a value, not a group of keys")
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from None


def _explain(schema: type[Config], detail: dict[str, Any]) -> str:
    parts = [part for part in detail["loc"] if isinstance(part, str)]
    location = _without_tags(schema, parts)
    key = ".".join(location) or "config"
    if detail["type"] != "extra_forbidden":
        message, given = detail["msg"].removeprefix("Value error, "), detail.get("input")
        place = "" if key == "config" else f"{key.removesuffix('.[key]')}: "
        # A whole group of keys says less than the message does.
        return f"{place}{message}" + ("" if isinstance(given, dict | Config) else f" (got {given!r})")
    return f"unknown key {key!r}{_hint(schema, location, _known_keys(schema, parts[:-1]))}"


def _hint(schema: type[Config], location: list[str], known: list[str]) -> str:
    """Keys of its name in other groups, or else one beside it that is nearly it, or else all that are beside it."""
    *group, name = location
    if elsewhere := [path for path in _key_paths(schema) if path.endswith(f".{name}")]:
        return f"; did you mean {' or '.join(repr(path) for path in elsewhere[:3])}?"
    if nearest := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {'.'.join([*group, nearest[0]])!r}?"
    return f"; expected one of {', '.join(known)}" if known else ""


def _key_paths(schema: type[Config], prefix: str = "", above: tuple[type[Config], ...] = ()) -> Iterator[str]:
    """Dotted keys of a config and of the configs in it; a config within itself once."""
    for name in schema.model_fields:
        yield f"{prefix}{name}"
        for child in _config_types(schema, name):
            if child not in (schema, *above):
                yield from _key_paths(child, f"{prefix}{name}.", (schema, *above))


def _known_keys(schema: type[Config], path: list[str]) -> list[str]:
    """Field names of the configs that `path` leads to; more than one where a union is on the way."""
    return sorted({name for cls in _walk(schema, path) for name in cls.model_fields})


def _walk(schema: type[Config], path: list[str]) -> list[type[Config]]:
    candidates: list[type[Config]] = [schema]
    for part in path:
        children = [c for cls in candidates if part in cls.model_fields for c in _config_types(cls, part)]
        candidates = children or [c for c in candidates if part in _tags(c)] or candidates
    return candidates


def _without_tags(schema: type[Config], location: list[str]) -> list[str]:
    """pydantic puts the tag of a union's member into the path (`data.source.synthetic.fps`); nobody writes it so."""
    kept: list[str] = []
    for i, part in enumerate(location):
        members = _walk(schema, kept)
        is_tag = i + 1 < len(location) and any(part in _tags(c) for c in members)
        if not is_tag or any(part in c.model_fields for c in members):
            kept.append(part)
    return kept


def _config_types(cls: type[Config], field: str) -> list[type[Config]]:
    pending, found = [cls.model_fields[field].annotation], []
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
            if issubclass(annotation, Config):
                found.append(annotation)
        else:
            pending.extend(typing.get_args(annotation))
    return found


def _tags(cls: type[Config]) -> tuple[Any, ...]:
    field = cls.model_fields.get("type")
    return typing.get_args(field.annotation) if field else ()
