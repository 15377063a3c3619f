"""The files that code of a manifest comes from, with the digests that a user's trust is bound to.

A binding names a module, a command names files: what these hold now is what a user allows (SCHEMA.md, "Trust"). Which
files count is decided here, generously: one too many asks once more than needed, one too few would run unseen code.
"""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from dm.environment import read_clock_ns
from dm.errors import Refused
from dm.values import printable

#: Files and folders that one manifest's code may consist of; more can neither be shown nor looked at for each call.
ENTRIES_MAX = 20_000
#: Bytes of these files in all: about ten seconds of hashing.
BYTES_MAX = 8 * 2**30
#: Folders that hold nothing that is imported: bytecode, which `dm` never runs, and version control's own.
_LEFT_OUT = frozenset(("__pycache__", ".git", ".hg", ".svn"))
#: Suffixes of what Python imports from beside a module.
_PYTHON_SUFFIXES = (".py", ".so", ".pyd", ".pyc", ".dylib")
#: Suffixes of the languages whose runtimes `dm` starts.
_SUFFIXES = {"r": (".r",), "julia": (".jl",)}
#: What their interpreters read in the folder they are started in, besides the module.
_SURROUNDINGS = {
    "r": (".renviron", ".rprofile"),
    "julia": ("project.toml", "manifest.toml", "juliaproject.toml", "juliamanifest.toml", "localpreferences.toml"),
}
#: Stands for a language in a `Pin`: a module that ``python -m`` runs. It is looked for in the folder first.
RUN_MODULE = "python -m"
#: A file that changed within this time may change again without another time stamp, nanoseconds.
_RACY_NS = 2_000_000_000
#: Kernel file systems: what is read there is no content.
_KERNEL_FOLDERS = ("/proc/", "/sys/", "/dev/")

_Stamp = tuple[int, int, int, int, int]


class Pin(NamedTuple):
    """Something that names files: a module of a ``language`` (or `RUN_MODULE`), without one a word of a command."""

    language: str
    name: str


class Pinned(NamedTuple):
    """A group of files that belong together, or where the files of a module are.

    ``name`` is for people; ``files`` are each file's name (relative to the project root) with what it holds; ``told``
    is what stands for a group without files: the groups that hold those of a module.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    told: str = "none in the project"


class PinnedFiles:
    """Finds and hashes pinned files below one project root. What is hashed is known by its stat data for as long as
    this lives; memory is bounded by `ENTRIES_MAX`.
    """

    def __init__(self, root: Path, *, left_out: Iterable[str] = ()) -> None:
        """``left_out`` are names below the root that a command may have as words without their being its code."""
        self._root = os.path.abspath(root)
        self._left_out = frozenset(left_out)
        self._known: dict[str, tuple[_Stamp, str]] = {}
        self._entries = 0
        self._bytes = 0

    def read(self, pins: Iterable[Pin]) -> list[Pinned]:
        """The groups of files that these pins lead to now, each with its content's digest; several may share files.

        A file that cannot be read is told as such. Raises `Refused` when there is more than can be pinned.
        """
        self._entries = self._bytes = 0
        groups: dict[str, dict[str, str]] = {}
        modules: dict[str, str] = {}
        seen: dict[str, str] = {}
        for pin in sorted(set(pins)):
            if not pin.language:
                # The group is there also when it is empty, so that the last file's going is seen.
                words = groups.setdefault("files that commands name", {})
                name = self._find_word(pin.name)
                if name is not None and name not in self._left_out:
                    words[name] = self._tell(name, seen)
                continue
            found: dict[str, None] = {}
            for group, names in self._find_files(pin):
                for name in names:
                    found[group] = None
                    groups.setdefault(group, {})[name] = self._tell(name, seen)
            is_run = pin.language == RUN_MODULE
            module = f"python module {pin.name} (-m)" if is_run else f"{pin.language} module {pin.name}"
            modules[module] = ", ".join(found) or "none in the project"
        self._known = {name: known for name, known in self._known.items() if name in seen}
        pinned = [Pinned(name, (), told) for name, told in modules.items()]
        pinned += [Pinned(name, tuple(sorted(files.items()))) for name, files in groups.items()]
        return sorted(pinned)

    # which files

    def _find_word(self, word: str) -> str | None:
        """The name of the file below the root that a word of a command names; None when it names none."""
        if not word or "\0" in word or len(os.fsencode(word)) > 4096:
            return None
        path = os.path.normpath(os.path.join(self._root, word))
        if not path.startswith(self._root.rstrip("/") + "/"):
            return None
        try:
            mode = os.stat(path).st_mode
        except OSError:
            # A link that leads nowhere yet is a name that somebody means to fill.
            return path[len(self._root.rstrip("/")) + 1 :] if os.path.islink(path) else None
        return None if stat.S_ISDIR(mode) else path[len(self._root.rstrip("/")) + 1 :]

    def _find_files(self, pin: Pin) -> Iterator[tuple[str, Iterable[str]]]:
        if pin.language == "python":
            yield from self._find_python(pin.name)
        elif pin.language == RUN_MODULE:
            yield from self._find_run(pin.name)
        else:
            yield from self._find_foreign(pin.language, pin.name)

    def _find_run(self, module: str) -> Iterator[tuple[str, Iterable[str]]]:
        """Also what comes before the standard library's: a file ``gzip.py`` is what ``python -m gzip`` runs."""
        yield from self._find_python(module, shadows=True)
        names = self._list_code(".", _PYTHON_SUFFIXES)
        if names:
            yield "python files beside the manifest", names
        for entry in self._list("."):
            if entry in sys.stdlib_module_names and self._is_package(entry, ""):
                yield f"{entry}/", self._walk(entry)

    def _find_python(self, module: str, *, shadows: bool = False) -> Iterator[tuple[str, Iterable[str]]]:
        top, _, rest = module.partition(".")
        if top in sys.stdlib_module_names and not shadows:
            return
        # A package below src/ is what an editable installation of the project itself imports.
        for base, where in ((".", "beside the manifest"), ("src", "in src/")):
            for entry in self._list(base):
                name = _join(base, entry)
                if _fold(entry) == _fold(top) and self._is_package(name, rest):
                    yield f"{name}/", self._walk(name)
            if any(_fold(name).startswith(f"{_fold(top)}.") for name in self._list(base) if _is_python(name)):
                yield f"python files {where}", self._list_code(base, _PYTHON_SUFFIXES)

    def _is_package(self, folder: str, rest: str) -> bool:
        """Whether a folder is what a module's top-level name means: a package, or a folder with the next part in it."""
        if not os.path.isdir(os.path.join(self._root, folder)):
            return False
        following = _fold(rest.partition(".")[0])
        names = [_fold(entry) for entry in self._list(folder)]
        return any(name.startswith("__init__.") for name in names) or bool(
            following and any(name == following or name.startswith(f"{following}.") for name in names)
        )

    def _find_foreign(self, language: str, module: str) -> Iterator[tuple[str, Iterable[str]]]:
        spelling, language = language, language.lower()
        suffixes = _SUFFIXES.get(language, ("",))
        places = {module, module.replace(".", "/")}
        folders = {"."}
        for place in places:
            if "\0" not in place:
                folder = os.path.dirname(os.path.normpath(place)) or "."
                if not folder.startswith(("/", "..")):
                    folders.add(folder)
        for folder in sorted(folders):
            shown = "beside the manifest" if folder == "." else f"in {folder}/"
            names = self._list_code(folder, suffixes) if language in _SUFFIXES else self._list_stem(folder, module)
            yield f"{spelling} files {shown}", names
        here = [name for place in sorted(places) if (name := self._find_word(place)) is not None]
        here += [entry for entry in self._list(".") if _fold(entry) in _SURROUNDINGS.get(language, ())]
        if language == "julia":
            here += [entry for entry in self._list(".") if _fold(entry).startswith("manifest-v")]
            if os.path.isdir(os.path.join(self._root, "src")):
                yield "src/", self._walk("src")
        yield f"{spelling} files beside the manifest", here

    def _list_stem(self, folder: str, module: str) -> list[str]:
        """Files of a language of which nothing is known: those whose name is the module's."""
        stem = _fold(module.rpartition(".")[2].rpartition("/")[2])
        names = [entry for entry in self._list(folder) if stem and _fold(entry).partition(".")[0] == stem]
        return [name for name in (_join(folder, entry) for entry in names) if self._find_word(name) is not None]

    def _list_code(self, folder: str, suffixes: tuple[str, ...]) -> list[str]:
        return [_join(folder, entry) for entry in self._list(folder) if _is_code(entry, suffixes)]

    def _list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._root, folder)))
        except OSError:
            return []

    def _walk(self, folder: str) -> Iterator[str]:
        """Every file below a folder, links followed; never into a folder that holds it."""
        pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
        while pending:
            current, above = pending.pop()
            path = os.path.join(self._root, current)
            try:
                status = os.stat(path)
                entries = sorted(os.scandir(path), key=lambda entry: entry.name)
            except OSError:
                yield current
                continue
            here = (status.st_dev, status.st_ino)
            if here in above or os.path.realpath(path).startswith(_KERNEL_FOLDERS):
                yield current
                continue
            for entry in entries:
                self._count()
                name = f"{current}/{entry.name}"
                if not _is_folder(entry):
                    yield name
                elif entry.name not in _LEFT_OUT:
                    pending.append((name, above | {here}))

    def _count(self) -> None:
        self._entries += 1
        if self._entries > ENTRIES_MAX:
            self._refuse_number()

    def _refuse_number(self) -> NoReturn:
        raise Refused(
            f"the code that the manifest names lies among more than {ENTRIES_MAX} files, too many to allow",
            hint="keep it in a package of its own, apart from data",
            code="pin-too-large",
        )

    # what they hold

    def _tell(self, name: str, seen: dict[str, str]) -> str:
        text = seen.get(name)
        if text is None:
            if len(seen) >= ENTRIES_MAX:
                self._refuse_number()
            text = seen[name] = self._read(name)
        return text

    def _read(self, name: str) -> str:
        path = os.path.join(self._root, name)
        real = os.path.realpath(path)
        lead = "" if not self._leads_away(path, real) else f", by a link to '{printable(real)}'"
        if real.startswith(_KERNEL_FOLDERS):
            return f"no file{lead}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return f"not there{lead}"
        except OSError as error:
            return f"unreadable ({error.strerror}){lead}"
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                return f"a folder{lead}"
            if not stat.S_ISREG(status.st_mode):
                return f"no file{lead}"
            return self._digest(name, descriptor, status) + lead
        except OSError as error:
            return f"unreadable ({error.strerror}){lead}"
        finally:
            os.close(descriptor)

    def _leads_away(self, path: str, real: str) -> bool:
        inside = os.path.realpath(self._root).rstrip("/") + path[len(self._root.rstrip("/")) :]
        return inside != real

    def _digest(self, name: str, descriptor: int, status: os.stat_result) -> str:
        from dm.plumbing import hashing

        self._bytes += status.st_size
        if self._bytes > BYTES_MAX:
            raise Refused(
                f"the code that the manifest names lies among more than {BYTES_MAX >> 30} GiB, too much to allow",
                hint="keep it in a package of its own, apart from data",
                code="pin-too-large",
            )
        stamp = _stamp(status)
        known = self._known.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        now_ns = read_clock_ns()
        with os.fdopen(os.dup(descriptor), "rb", buffering=0) as stream:
            text = str(hashing.hash_stream(stream, "blake3"))
        settled = max(status.st_mtime_ns, status.st_ctime_ns) < now_ns - _RACY_NS
        if settled and _stamp(os.fstat(descriptor)) == stamp:
            self._known[name] = (stamp, text)
        return text


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_code(name: str, suffixes: tuple[str, ...]) -> bool:
    return _fold(name).endswith(suffixes)


def _is_python(name: str) -> bool:
    return _is_code(name, _PYTHON_SUFFIXES)


def _join(folder: str, entry: str) -> str:
    return entry if folder == "." else f"{folder}/{entry}"


def _fold(name: str) -> str:
    """A name as a file system that knows no case, and no forms of Unicode, compares it."""
    return unicodedata.normalize("NFC", name).casefold()
