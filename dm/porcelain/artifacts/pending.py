"""A result on its way: the lock is held, the value is computed, then it is written, published, recorded.

Everything is staged in a private folder of the store. Leaving without `commit`, by whatever exception, removes it and
frees the lock; a kill leaves it there for the next one that computes the same, or for ``dm prune``. Nothing of it can
be taken for a result before the publication's last step, the marker.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from dm.environment import format_time, read_clock_ns, read_monotonic_s
from dm.errors import DmError, MachineFailed, Refused, SourceFailed
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder, flush_file_systems, replace
from dm.plumbing.fs.remove import remove_tree
from dm.plumbing.records.sidecars import (
    CONFIG_NAME,
    METADATA_NAME,
    SIDECAR_NAMES,
    Metadata,
    decode_metadata,
    encode_config,
    encode_metadata,
)
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.publication import Publication
from dm.porcelain.artifacts.taking_over import Addition, take_over

if TYPE_CHECKING:
    from dm.plumbing.fs.lock import CopyLock
    from dm.plumbing.records.params import Plain
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.artifacts.recipe import Recipe
    from dm.progress import Progress

#: The folders of the results that are being computed around the code that runs: the same one inside itself would wait
#: for ever.
held_folders: ContextVar[frozenset[str]] = ContextVar("dm_held_folders", default=frozenset())


class Work(NamedTuple):
    """What is to be computed. ``load`` reads the value back from where it lies, ``reads_on`` says that the value may
    need the file then; ``done`` is told where it was put.
    """

    recipe: Recipe
    table: Mapping[str, Plain]
    hash: str
    name: str
    folder: Path
    progress: Progress
    load: Callable[[Path], object]
    reads_on: bool
    done: Callable[[], None]
    state_file: str = ""
    provenance: Metadata | None = None


class Held(NamedTuple):
    """What is held while it is computed: the store, the lock of the artifact's folder, the staging folder."""

    store: DiskStore
    lock: CopyLock
    staging: Path


class _ReadBack(NamedTuple):
    """The value that a format gives of what was written."""

    value: object


class Pending:
    """A result that is to be computed now, by whoever holds this; a `with` block.

    Between `Artifacts.begin` and the end of the block the lock of the artifact's folder is held. Without a store that
    can be written to there is nothing held, and `commit` hands the value through.
    """

    def __init__(self, work: Work, held: Held | None) -> None:
        self._work = work
        self._held = held
        self._scratch: Path | None = None
        self._process_id = os.getpid()
        self._token: Token[frozenset[str]] | None = None
        self._begin_s = self._end_s = read_monotonic_s()

    @property
    def is_kept(self) -> bool:
        """Whether the result will be kept."""
        return self._held is not None

    @property
    def path(self) -> Path:
        """Where the data will lie."""
        return self._work.folder / self._work.name

    @property
    def data_path(self) -> Path:
        """Where the data is to be written by a function that writes itself: a path in a private folder."""
        if self._held is not None:
            return self._held.staging / self._work.name
        if self._scratch is None:
            import atexit
            import tempfile

            with machine_errors("write to", Path(tempfile.gettempdir())):
                self._scratch = Path(tempfile.mkdtemp(prefix="dm-"))
            # Values may read on from it, or be its path.
            atexit.register(_remove_quietly, self._scratch)
        return self._scratch / self._work.name

    def __enter__(self) -> Self:
        self._token = held_folders.set(held_folders.get() | {os.fspath(self._work.folder)})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # left in another context than entered
                held_folders.reset(token)
        self.abandon()

    def abandon(self) -> None:
        """Let go of all that is held; nothing is left of it. After `commit` there is nothing to let go of."""
        held, self._held = self._held, None
        if held is None or os.getpid() != self._process_id:
            return  # a forked child ends in the function: it is its parent's
        try:
            remove_tree(held.staging)
        finally:
            held.lock.release()

    def commit(self, value: object, *, metadata: Mapping[str, object] | None = None) -> object:
        """Keep the value and return what its format gives back, as all later calls do; the value itself where it is
        known to come back as it is. For a function that wrote itself, what is loaded from what it wrote.

        ``metadata`` are further fields of ``metadata.toml``. A value that cannot be written or read back, a store or a
        state that cannot be written to, are told and the value is returned all the same. Raises `SourceFailed` when a
        function that writes itself wrote nothing, or what its format cannot read. After a crash there is the whole
        result or none.
        """
        work = self._work
        self._end_s = read_monotonic_s()
        if work.recipe.writes_itself:
            self._check_written()
        if self._held is None or os.getpid() != self._process_id:
            # A child that was forked off in the function has the value; what is kept is its parent's.
            return work.load(self.data_path) if work.recipe.writes_itself else value
        if work.recipe.writes_itself:
            # What it wrote and nobody can read is an error of its own, and never a result.
            read_back = self._read_back(self.data_path)
        try:
            if not work.recipe.writes_itself:
                read_back = self._write(self._held, value)
            self._publish(self._held, metadata or {})
        except (MachineFailed, SourceFailed, Refused) as error:  # refused: a fifo in a folder that was written
            work.progress.warn(f"a result of '{work.recipe.cachetype}' is not kept: {error.message}")
            return self._hand_through(self._held) if work.recipe.writes_itself else value
        self.abandon()
        work.done()
        if read_back is not None:
            return read_back.value
        return work.load(self.path) if work.recipe.writes_itself else self._read_on(value)

    def _check_written(self) -> None:
        _check_is_data(
            self.data_path,
            f"'{self._work.recipe.ref or self._work.recipe.cachetype}'",
            hint="a function with a '_path' parameter makes a file or a folder there",
        )

    def _hand_through(self, held: Held) -> object:
        """The value of what was written and could not be published; a path stays good until the process ends."""
        import atexit

        held_path = held.staging / self._work.name
        self._held = None
        try:
            value = self._work.load(held_path)
            if isinstance(value, Path):
                atexit.register(_remove_quietly, held.staging)
            else:
                remove_tree(held.staging)
        except BaseException:
            remove_tree(held.staging)
            raise
        finally:
            held.lock.release()
        return value

    # Publishing

    def _write(self, held: Held, value: object) -> _ReadBack | None:
        """Write the value: what its format gives back, as far as `_read_back` knows."""
        path = held.staging / self._work.name
        return _ReadBack(value) if _save(self._work.recipe, value, path) else self._read_back(path)

    def _read_back(self, path: Path) -> _ReadBack | None:
        """What the format gives of what was written, before it is published: what cannot be read is no result. None for
        what reads on from its file, which is read where it will lie, and where the fault is not the file's.
        """
        if self._work.reads_on and self._work.recipe.loader is not None:
            return None  # the caller's loader may read all of it, which is done once
        try:
            value = self._work.load(path)
        except SourceFailed as error:
            if blames_data(error):
                raise
            return None
        if not self._work.reads_on:
            return _ReadBack(value)
        close = getattr(value, "close", None)
        if close is not None:
            close()
        return None

    def _publish(self, held: Held, extra: Mapping[str, object]) -> None:
        work = self._work
        path = held.staging / work.name
        others = list_other_formats(work.folder, work.name)
        if others:
            self._add(held, path, others, extra)
            return
        config = encode_config(work.recipe.cachetype, work.recipe.version, work.table, work.hash)
        with machine_errors("write", held.staging):
            (held.staging / CONFIG_NAME).write_bytes(config)
            (held.staging / METADATA_NAME).write_bytes(encode_metadata(self._describe(extra)))
        for name in os.listdir(held.staging):
            if name not in (work.name, *SIDECAR_NAMES):
                remove_tree(held.staging / name)  # what the function left beside its data is no part of the result
        held.store.publish([Publication(held.staging, work.folder, replace=True)])

    def _read_on(self, value: object) -> object:
        """What the format gives back of a value that was published; the value itself where it cannot be read."""
        try:
            return self._work.load(self.path)
        except (MachineFailed, SourceFailed) as error:
            told = f"a result of '{self._work.recipe.cachetype}' cannot be read back"
            self._work.progress.warn(f"{told}: {error.message}")
            return value

    def _add(self, held: Held, path: Path, others: Sequence[str], extra: Mapping[str, object]) -> None:
        """Put the data beside that of other formats: away with older data of that name, then ``metadata.toml``, which
        keeps what it said of the others, then the data, then the ref that speaks of it.

        Killed in between, no data is taken for what other code made: what lies there and is new is as a peer would have
        left it, taken over at the next look; what is lost is computed again.
        """
        work = self._work
        target, metadata = work.folder / work.name, held.staging / METADATA_NAME
        former, known = _read_metadata(work.folder)
        earlier = {name: known.find_of(name) for name in others}
        with machine_errors("write", held.staging):
            metadata.write_bytes(encode_metadata(self._describe(extra)._replace(earlier=earlier)))
        if held.store.options.durable:
            flush_file_systems([path])
        remove_tree(target)
        replace(metadata, work.folder / METADATA_NAME)
        replace(path, target)
        take_over(held.store, work.folder, added=Addition(work.name, former), progress=work.progress)

    def _describe(self, extra: Mapping[str, object]) -> Metadata:
        work = self._work
        return (work.provenance or Metadata())._replace(
            created=format_time(read_clock_ns()),
            duration_s=round(self._end_s - self._begin_s, 3),
            state_file=work.state_file,
            code_digest=work.recipe.code_digest or "",
            extra=extra,
        )


def blames_data(error: SourceFailed) -> bool:
    """Whether a loader's error says that the data is bad; it does not where a library or memory is missing."""
    return error.code != "extra-missing" and not isinstance(error.__cause__, MemoryError)


def _read_metadata(folder: Path) -> tuple[bytes | None, Metadata]:
    """The bytes of an artifact's ``metadata.toml``, and what they say; nothing where they cannot be read."""
    data = None
    try:
        data = (folder / METADATA_NAME).read_bytes()
        return data, decode_metadata(data)
    except (OSError, DmError):
        return data, Metadata()


def _save(recipe: Recipe, value: object, path: Path) -> bool:
    """Write the value in the recipe's format; whether it is known to come back as it is. Raises `SourceFailed` and
    `MachineFailed`.
    """
    from dm.plumbing.formats.loaders import find_saver
    from dm.plumbing.formats.loaders.kinds import Saver

    saver = find_saver(recipe.format, library=recipe.library) if recipe.saver is None else None
    if recipe.saver is not None:
        saver = Saver(recipe.format, "the given saver", recipe.saver)
    if saver is None:
        raise refuse_format(recipe)
    saver.save(value, path)
    _check_is_data(path, f"the saver of '{recipe.cachetype}'", hint="a saver makes a file or a folder there")
    return recipe.saver is None and recipe.loader is None and saver.keeps(value)


def _check_is_data(path: Path, writer: str, *, hint: str) -> None:
    """Raise `SourceFailed` where ``writer`` left neither a file nor a folder: who reads a fifo waits for ever."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = 0
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "neither a file nor a folder" if mode else "nothing"
        raise SourceFailed(f"{writer} wrote {what} to '{display_path(path)}'", hint=hint, code="nothing-written")


def refuse_format(recipe: Recipe) -> SourceFailed:
    """The error for a format that nobody can write."""
    return SourceFailed(
        f"cannot keep results of '{recipe.cachetype}': there is no saver for the format '{recipe.format}'",
        hint="choose another 'format', or give a 'saver' and a 'loader'",
        code="saver-missing",
    )


def list_other_formats(folder: Path, name: str) -> list[str]:
    """The data in other formats that lies in a folder already."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [each for each in names if each not in (name, MARKER_NAME, *SIDECAR_NAMES)]


def make_staging(store: DiskStore, folder: Path) -> Path:
    """A private, empty folder for the result that will lie in ``folder``. The caller holds its lock."""
    staging = store.partial_folder(f"artifact {folder}")
    remove_tree(staging)
    ensure_folder(staging, root=store.root)
    return staging


def _remove_quietly(path: Path) -> None:
    with suppress(DmError):
        remove_tree(path)
