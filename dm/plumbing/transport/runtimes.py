"""Fetchers in other languages: the language's own interpreter, run on ``module:function``.

How they are called is in SCHEMA.md, "Other languages". A fixed script beside this module calls the function; what it
is called with is written to a private file, one value a line, and never becomes part of any code. A line is a letter
and a text:

| letter | value |
|---|---|
| ``s`` | a string, with ``%``, LF and CR as ``%25``, ``%0A``, ``%0D`` |
| ``i`` ``f`` ``b`` | a whole number, a float, a bool (``1``, ``0``) |
| ``l`` | a list: how many values follow |
| ``t`` | a table: how many pairs of a name and a value follow |

Dates and times are strings in ISO 8601.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dm.errors import Malformed, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.command import Finished, run_command
from dm.values import Binding, Permission, find_key_fault, printable

#: Exit statuses of the scripts: the function cannot be had, it failed.
_STATUS_BROKEN = 81
_STATUS_FAILED = 82


class _Language(NamedTuple):
    """How a language's functions are called: its interpreter with its options, the script, its files' suffix."""

    title: str
    program: str
    options: tuple[str, ...]
    script: str
    suffix: str


_LANGUAGES = {
    # Neither the user's interactive habits nor a profile that lies in the clone: .Rprofile, .RData, startup.jl.
    "r": _Language("R", "Rscript", ("--no-save", "--no-restore", "--no-init-file"), "call_fetcher.R", ".R"),
    "julia": _Language("Julia", "julia", ("--startup-file=no",), "call_fetcher.jl", ".jl"),
}


def find_runtime(language: str, variables: Mapping[str, str]) -> list[str] | None:
    """The interpreter of a language (``julia``, ``r``; in any case) with its options, found on ``PATH`` of
    ``variables``; None when it is not installed or the language is none of these.
    """
    known = _LANGUAGES.get(language.lower())
    if known is None:
        return None
    program = shutil.which(known.program, path=variables.get("PATH", os.defpath))
    return None if program is None else [program, *known.options]


def find_module_file(language: str, module: str, project_root: Path) -> Path | None:
    """The file below the project root that a module of another language names: ``<module>.R`` or ``<module>.jl``.

    The module may have folders (``scripts/get``). None when there is no such file: then it is an installed package.
    """
    known = _LANGUAGES.get(language.lower())
    if known is None or find_key_fault(module) is not None:
        return None
    path = project_root / (module + known.suffix)
    return path if path.is_file() else None


def split_foreign_reference(binding: Binding) -> tuple[str, str]:
    """The module (a file's path without its suffix, or a package) and the function of a binding in another language.

    Raises `Malformed` (``binding-malformed``) for a reference of another form, or a module outside the project.
    """
    module, colon, name = binding.ref.partition(":")
    if not (module and colon and name) or find_key_fault(module) is not None:
        raise Malformed(
            f"{_describe(binding)} names no function",
            hint='write "module:function"; a module is a file below the project root or an installed package',
            code="binding-malformed",
        )
    return module, name


def run_foreign(
    language: str,
    binding: Binding,
    *,
    download_path: Path,
    context: Mapping[str, object],
    project_root: Path,
    variables: Mapping[str, str],
    should_stop: Callable[[], bool],
    take_line: Callable[[str], None] | None = None,
    permission: Permission,
) -> None:
    """Call a fetcher of another language, which makes a file or a folder at ``download_path``.

    With arguments it is called with exactly these; their ``$variables`` have been replaced by the caller. Without, it
    gets ``download_path`` and, by name, those of ``context`` that it names. It runs in the project root with
    ``variables`` as its environment; what it prints goes to ``take_line``. The values lie in ``<download_path>.call``
    while it runs, which only this user can read; a kill leaves that file, the next run replaces it.

    Raises `SourceFailed`: ``runtime-missing``, ``binding-broken`` when the function cannot be had, ``fetcher-failed``
    with the last words of a function that failed; `Malformed` for a ref that is none; `Stopped` when the run stops.
    """
    del permission  # whoever has one may run this; there is nothing in it
    known = _LANGUAGES.get(language.lower())
    interpreter = find_runtime(language, variables)
    if known is None or interpreter is None:
        raise SourceFailed(
            f"cannot run {_describe(binding)}: no {known.program if known else printable(language)} on PATH",
            hint="install it, or put the folder that holds it on PATH",
            code="runtime-missing",
        )
    call = _make_call(language, binding, download_path=download_path, context=context, project_root=project_root)
    words = [*interpreter, *_list_project_options(known, project_root), str(Path(__file__).with_name(known.script))]
    request = download_path.with_name(download_path.name + ".call")
    _write_private(request, "".join(f"{line}\n" for line in _encode(call, _describe(binding))))
    try:
        finished = run_command(
            words,
            folder=project_root,
            variables=_make_variables(known, variables, request),
            should_stop=should_stop,
            take_line=take_line,
        )
    finally:
        with suppress(FileNotFoundError):
            request.unlink()
    _check(finished, known, binding)


def _describe(binding: Binding) -> str:
    origin = f" ({printable(binding.origin)})" if binding.origin else ""
    return f"'{printable(binding.ref)}'{origin}"


def _make_call(
    language: str, binding: Binding, *, download_path: Path, context: Mapping[str, object], project_root: Path
) -> dict[str, object]:
    module, name = split_foreign_reference(binding)
    call: dict[str, object] = {"module": module, "name": name, "download_path": os.fspath(download_path)}
    file = find_module_file(language, module, project_root)
    if file is not None:
        call["file"] = os.fspath(file)
    explicit = bool(binding.args or binding.kwargs)
    call["explicit"] = explicit
    if explicit:
        call |= {"args": list(binding.args), "kwargs": dict(binding.kwargs)}
    else:
        given = {name: value for name, value in context.items() if value is not None and name != "download_path"}
        call["context"] = {"project_root": os.fspath(project_root), **given}
    return call


def _list_project_options(language: _Language, project_root: Path) -> Sequence[str]:
    names = ("JuliaProject.toml", "Project.toml") if language.title == "Julia" else ()
    return (f"--project={project_root}",) if any((project_root / name).is_file() for name in names) else ()


def _make_variables(language: _Language, variables: Mapping[str, str], request: Path) -> dict[str, str]:
    made = {**variables, "DATAMANIFEST_CALL": os.fspath(request)}
    if language.title == "R" and "R_ENVIRON_USER" not in variables:
        # The user's own, never the one in the clone: it says where the user's packages are.
        made["R_ENVIRON_USER"] = os.path.join(variables.get("HOME", "/"), ".Renviron")
    return made


def _encode(value: object, where: str) -> Iterator[str]:
    """The lines of a value. Raises `Malformed` for one that no other language can be given."""
    if isinstance(value, bool):
        yield f"b{int(value)}"
    elif isinstance(value, int):
        yield f"i{value}"
    elif isinstance(value, float):
        yield f"f{_encode_float(value)}"
    elif isinstance(value, Mapping):
        yield f"t{len(value)}"
        for name, each in value.items():
            yield from _encode(str(name), where)
            yield from _encode(each, where)
    elif isinstance(value, list | tuple):
        yield f"l{len(value)}"
        for each in value:
            yield from _encode(each, where)
    else:
        text = str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
        if "\0" in text:
            raise Malformed(f"cannot call {where}: a value holds a NUL character", code="binding-malformed")
        yield "s" + text.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")


def _encode_float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"


def _write_private(path: Path, text: str) -> None:
    with machine_errors("write", path):
        with suppress(FileNotFoundError):
            path.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(os.fsencode(text))


def _check(finished: Finished, language: _Language, binding: Binding) -> None:
    if finished.status == 0:
        return
    if finished.status == _STATUS_BROKEN:
        raise SourceFailed(f"cannot use {_describe(binding)}: {finished.told}", code="binding-broken")
    raise SourceFailed(f"{_describe(binding)} failed in {language.title}: {finished.told}", code="fetcher-failed")
