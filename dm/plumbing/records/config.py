"""Config files: the checkout's ``.datamanifest/config.toml`` and the user's own, each ``[_STORAGE]`` at its root.

A file that is not there costs one attempt to open it. One that is malformed is an error with file and line, never
ignored (SCHEMA.md, "The ladder").
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dm.plumbing.records.ladder import BUILT_IN, Rung, Source
from dm.plumbing.records.private import PRIVATE_FOLDER
from dm.plumbing.records.record_file import RecordFile, read_record

CONFIG_NAME = f"{PRIVATE_FOLDER}/config.toml"


def read_config(path: Path) -> Source:
    """The table of a config file; an empty one when there is no such file.

    Raises `Malformed` with file and line, `MachineFailed` when it cannot be read.
    """
    content = read_record(path).content
    if content is None:
        return Source(path, {})
    from dm.plumbing.records.toml import read_toml

    return Source(path, read_toml(content, file=path), (), make_line_finder(content))


def make_line_finder(text: str | bytes) -> Callable[[tuple[str, ...], str], int | None]:
    """A function that gives the line, from 1, of a field of a table in a TOML text; None where it is not found."""

    def find(table: tuple[str, ...], field: str) -> int | None:
        from dm.plumbing.records.toml_edit import find_line

        return find_line(text.decode() if isinstance(text, bytes) else text, table, field)

    return find


class ProjectFiles:
    """``pyproject.toml`` and ``Project.toml`` as they lay beside the manifest when it was opened. They are understood
    when the project's name is asked for.
    """

    def __init__(self, project_root: Path) -> None:
        """Read both. Raises `MachineFailed` when one is there and cannot be read."""
        self._found = [read_record(project_root / name) for name in ("pyproject.toml", "Project.toml")]

    def find_name(self) -> Rung | None:
        """The name that the project goes by: ``[project].name`` of ``pyproject.toml``, else ``uuid``, else ``name`` of
        ``Project.toml``; None when neither says. Raises `Malformed` with file and line.
        """
        python, julia = self._found
        return (
            _find_name(python, ("project",), "name") or _find_name(julia, (), "uuid") or _find_name(julia, (), "name")
        )


def _find_name(file: RecordFile, path: tuple[str, ...], field: str) -> Rung | None:
    if file.content is None:
        return None
    from dm.plumbing.records.toml import read_toml

    table: object = read_toml(file.content, file=file.path)
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    value = table.get(field) if isinstance(table, dict) else None
    if not isinstance(value, str) or not value:
        return None
    find_line = make_line_finder(file.content)
    where = f"[{'.'.join(path)}] {field}" if path else field
    return Rung("project", value, BUILT_IN, where, file=file.path, find_line=lambda: find_line(path, field))
