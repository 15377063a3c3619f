"""Text and structured text: txt and md as `str`, json, yaml and toml as what they hold, jsonl as a list of that.

Bytes are UTF-8 (json also UTF-16 and UTF-32, as RFC 4627 has it). Line ends of text become newlines, but for who wants
back what was saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value


def _read_bytes(source: Source) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else cast(BinaryIO, source).read()


def _read_text(source: Source) -> str:
    return TextIOWrapper(BytesIO(_read_bytes(source)), encoding="utf-8").read()


def _read_saved_text(source: Source) -> str:
    return _read_bytes(source).decode("utf-8")


def _read_json(source: Source) -> object:
    return json.loads(_read_bytes(source))


def _read_jsonl(source: Source) -> object:
    return [json.loads(line) for line in _read_bytes(source).splitlines() if line.strip()]


def _read_yaml(source: Source) -> object:
    return need("yaml", "yaml").safe_load(_read_bytes(source))


def _read_toml(source: Source) -> object:
    import tomllib

    return tomllib.loads(_read_bytes(source).decode("utf-8"))


def _write_text(value: Any, path: Path) -> None:
    if not isinstance(value, str):
        refuse_value(value, "a str")
    path.write_text(value, encoding="utf-8", newline="")


def _is_text(value: object) -> bool:
    return type(value) is str


def _write_json(value: Any, path: Path) -> None:
    path.write_text(_dump_json(value) + "\n", encoding="utf-8")


def _write_jsonl(value: Any, path: Path) -> None:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | dict | Iterator):
        refuse_value(value, "a list")  # an iterator would be empty for whoever has it
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_dump_json(item) + "\n" for item in value)


def _dump_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # NaN is no JSON: other tools would not read it
    json.loads(text, object_pairs_hook=_refuse_twice)
    return text


def _refuse_twice(pairs: list[tuple[str, object]]) -> None:
    """Raise `ValueError` for a table in which two names were different before they became texts, as 1 and "1" are."""
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        name = next(name for name in names if [each for each, _ in pairs].count(name) > 1)
        raise ValueError(f"one of its tables has two names that are '{name}' as a text, and would lose one")


def _write_yaml(value: Any, path: Path) -> None:
    yaml = need("yaml", "yaml")
    with path.open("w", encoding="utf-8") as file:
        yaml.safe_dump(value, file, allow_unicode=True, sort_keys=False)


def _write_toml(value: Any, path: Path) -> None:
    import tomli_w

    with path.open("wb") as file:
        tomli_w.dump(value, file)


LOADERS = (
    Loader("txt", "text in UTF-8", _read_text),
    Loader("md", "text in UTF-8", _read_text),
    Loader("json", "json.loads", _read_json),
    Loader("jsonl", "json.loads, line by line", _read_jsonl),
    Loader("yaml", "yaml.safe_load", _read_yaml),
    Loader("toml", "tomllib.loads", _read_toml),
)
#: In place of the loaders above for what the savers wrote.
SAVED_LOADERS = (
    Loader("txt", "text in UTF-8", _read_saved_text),
    Loader("md", "text in UTF-8", _read_saved_text),
)
SAVERS = (
    Saver("txt", "text in UTF-8", _write_text, keeps=_is_text),
    Saver("md", "text in UTF-8", _write_text, keeps=_is_text),
    Saver("json", "json.dumps", _write_json),
    Saver("jsonl", "json.dumps, line by line", _write_jsonl),
    Saver("yaml", "yaml.safe_dump", _write_yaml),
    Saver("toml", "tomli_w.dump", _write_toml),
)
