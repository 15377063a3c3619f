"""Changing one setting: in the checkout's config, the user's config, or a manifest's ``[_STORAGE]``.

The lines concerned change and nothing else. A name that is nearly a field is taken for a slip; a personal field is
refused where it would never be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from dm.environment import Environment
from dm.errors import NotFound, UsageError
from dm.plumbing.records.config import CONFIG_NAME, read_config
from dm.plumbing.records.fields import (
    WrongValue,
    convert_value,
    find_field,
    find_nearest_field,
    is_personal,
    is_symbol,
    is_word,
)
from dm.plumbing.records.ladder import Rung, Source, list_settings
from dm.plumbing.records.private import ensure_private_folder
from dm.plumbing.records.rewrite import RecordFile, Rewrite, RewriteOptions, rewrite_record
from dm.progress import SILENT, Progress
from dm.values import printable

#: Whose setting: this checkout's, this user's, the project's.
ConfigScope = Literal["local", "global", "project"]
#: Tables with the fields that change, as `toml.set_tables` takes them.
TableChanges = dict[str | tuple[str, ...], Mapping[str, object] | None]


def check_setting_name(name: str, scope: ConfigScope, *, symbols: Iterable[str] = ()) -> None:
    """Refuse a name that cannot be set there. ``symbols`` are the user-defined ones that exist already.

    Raises `UsageError` (exit 2): for a name that is none, one that is nearly a field (it names the field), one whose
    meaning is reserved, and a personal field anywhere but in the user's config.
    """
    known = find_field(name) is not None or name in symbols
    if not known:
        nearest = find_nearest_field(name, symbols)
        if nearest is not None:
            raise UsageError(
                f"unknown field '{printable(name)}'", hint=f"the nearest is '{nearest}'", code="field-unknown"
            )
        if not is_word(name) or name[0].isdigit() or not is_symbol(name):
            raise UsageError(
                f"unknown field '{printable(name)}'",
                hint="a folder of your own has a name of letters, digits and '_'",
                code="field-unknown",
            )
    if scope != "global" and is_personal(name):
        raise UsageError(
            f"'{name}' is read from the environment and the user's config only",
            hint=f"dm config set --global {name} …",
            code="field-personal",
        )


def parse_setting(name: str, words: Sequence[str]) -> object:
    """The value of a setting from the words of a command line, as it is written to TOML.

    A field that holds a list takes any number of words, every other exactly one. Raises `UsageError`.
    """
    field = find_field(name)
    if field is not None and field.kind in ("paths", "links"):
        value: object = list(words)
    elif len(words) != 1:
        raise UsageError(f"'{name}' takes one value, not {len(words)}", code="wrong-type")
    else:
        value = words[0]
    try:
        converted = convert_value(name, value)
    except WrongValue as error:
        raise UsageError(f"'{name}' must be {error}, not '{printable(' '.join(words))}'", code="wrong-type") from None
    if isinstance(converted, tuple):
        return list(converted)
    if isinstance(converted, float) and converted.is_integer():
        return int(converted)
    if field is not None and field.kind == "size":
        return converted if words[0].isdigit() else words[0]
    return converted


def plan_change(name: str, value: object | None, *, host: str | None, root: tuple[str, ...] = ()) -> TableChanges:
    """The edit that sets a field, or removes it (None); with ``host`` in the ``_HOST`` table of that pattern.

    ``root`` is the table that holds the fields: ``("_STORAGE",)`` in a manifest.
    """
    path = root if host is None else (*root, "_HOST", host)
    table, dot, kind = name.partition(".")
    if dot:
        path, name = (*path, table), kind
    return {path: {name: value}}


def edit_config(
    scope: ConfigScope,
    project_root: Path | None,
    environment: Environment,
    change: TableChanges,
    *,
    progress: Progress = SILENT,
) -> bool:
    """Apply a change of `plan_change` to the checkout's (``local``) or the user's (``global``) config file.

    The file and its folder are made when missing; several editors at once lose nothing. Returns whether anything
    changed. Raises `Malformed` for a file that is not TOML, `MachineFailed`, `UsageError` for ``local`` without a
    project, and `Refused` for a local file that is a link out of it. After a crash the old file is there or the new
    one.
    """
    if scope == "local":
        if project_root is None:
            raise UsageError("no project here, so no local config", hint="dm init, or --global", code="no-project")
        path = project_root / CONFIG_NAME
        lock = ensure_private_folder(project_root) / "config.lock"
    else:
        path = environment.user_config_file
        lock = path.with_name(path.name + ".lock")
    changed: list[bool] = []

    def build(found: list[RecordFile]) -> Rewrite | None:
        from dm.plumbing.records.toml import read_toml
        from dm.plumbing.records.toml_edit import set_tables

        content = found[0].content or b""
        read_toml(content, file=path)
        text = content.decode()
        new = set_tables(text, change)
        changed[:] = [new != text]
        return Rewrite(found[0], new.encode()) if new != text else None

    holder = f"{environment.process_id} {environment.host_name}"
    within = project_root if scope == "local" else None
    rewrite_record([path], build, RewriteOptions(lock, f"'{path}'", holder, progress=progress, within=within))
    return changed[0]


def find_setting(source: Source, name: str, host: str | None) -> Rung:
    """What one file itself says of a name. Raises `NotFound` when it does not set it."""
    for rung in list_settings(source):
        if rung.name == name and rung.host == host:
            return rung
    nearest = find_nearest_field(name, [rung.name for rung in list_settings(source)])
    at = "the given table" if source.path is None else f"'{source.path}'"
    where = at if host is None else f'_HOST."{host}" of {at}'
    raise NotFound(
        f"'{printable(name)}' is not set in {where}",
        hint=f"did you mean '{nearest}'?" if nearest not in (None, name) else None,
        code="field-unset",
    )


def read_scope(scope: ConfigScope, project_root: Path | None, environment: Environment) -> Source:
    """The config file of the checkout (``local``) or the user (``global``). Raises as `read_config` does."""
    if scope == "global":
        return read_config(environment.user_config_file)
    if project_root is None:
        raise UsageError("no project here, so no local config", hint="dm init, or --global", code="no-project")
    return read_config(project_root / CONFIG_NAME)


__all__ = [
    "ConfigScope",
    "TableChanges",
    "check_setting_name",
    "edit_config",
    "find_setting",
    "list_settings",
    "parse_setting",
    "plan_change",
    "read_scope",
]
