"""Which artifacts there are: those in the project's folders, and those that its state records elsewhere.

Looking through names is cheap (some 10 µs each); what is in an artifact's folder is read by `read_facts`, one at a
time, so that long lists can be shown while they are made. Nothing is written, and no data is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.records.artifact_names import (
    ArtifactName,
    is_param_hash,
    make_address,
    parse_artifact_name,
    split_state_key,
)
from dm.plumbing.records.artifact_places import ArtifactRoot, list_artifact_roots
from dm.plumbing.records.sidecars import CONFIG_NAME, METADATA_NAME, SIDECAR_NAMES, Config, Metadata
from dm.plumbing.records.state import resolve_storage_path
from dm.plumbing.store.layout import find_store_root
from dm.plumbing.store.markers import MARKER_NAME
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.store.refs import Ref
    from dm.porcelain.project import Project

#: Digits of a hash that are shown.
SHOWN_DIGITS = 12
#: Parts of a path that are looked through above a hash: peers' cachetypes may have several, and a folder of artifacts
#: may hold other things.
_DEPTH_MAX = 4
#: So many candidates are named.
_NAMED = 5


class Spot(NamedTuple):
    """One folder of one artifact, there or only recorded.

    ``version`` is ``""`` where there is none. ``root`` is the project's folder that it lies in, None elsewhere.
    ``folder`` is None where a state of an older tool says that there was one, and not where.
    """

    cachetype: str
    version: str
    hash: str
    folder: Path | None
    root: ArtifactRoot | None
    is_there: bool
    is_recorded: bool

    @property
    def address(self) -> str:
        """``<cachetype>[/<version>]/<hash>``."""
        return make_address(self.cachetype, self.version, self.hash)

    @property
    def name(self) -> str:
        """The address with the first digits of the hash, for people."""
        return make_address(self.cachetype, self.version, self.hash[:SHOWN_DIGITS])


def list_spots(project: Project) -> Iterator[Spot]:
    """Every folder of every artifact that the project knows: those of its own folders by name, each folder once, then
    what the state records and is not among them.

    Raises `Malformed` for a state or settings that cannot be read, `MachineFailed` for a folder that cannot be.
    """
    recorded, left = _read_records(project)
    roots = list_artifact_roots(project.places)
    others = frozenset(os.fspath(root.folder) for root in roots)
    for root in roots:
        for parts, folder in _walk(root.folder, (), others):
            left.pop((make_address("/".join(parts[:-1]), "", parts[-1]), folder), None)
            cachetype, version = _split(parts[:-1])
            yield Spot(cachetype, version, parts[-1], folder, root, True, folder in recorded)
    yield from left.values()


def _read_records(project: Project) -> tuple[set[Path], dict[tuple[str, Path | None], Spot]]:
    """The folders that the state records, and a spot for each of its records by address and folder."""
    spots: dict[tuple[str, Path | None], Spot] = {}
    folders: set[Path] = set()
    for key, recipe in project.state.datacache.items():
        cachetype, version = split_state_key(key)
        for param_hash, path in recipe.instances.items():
            folder = resolve_storage_path(project.root, path) if path else None
            if folder is not None:
                folders.add(folder)
            is_there = folder is not None and _is_folder(folder)
            spot = Spot(cachetype, version, param_hash, folder, None, is_there, True)
            spots[spot.address, folder] = spot
    return folders, spots


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _split(parts: Sequence[str]) -> tuple[str, str]:
    """Cachetype and version of the folders above a hash. (`dm` and today's peers make one or two of them.)"""
    return (parts[0], parts[1]) if len(parts) == 2 else ("/".join(parts), "")


def _walk(folder: Path, above: tuple[str, ...], others: Collection[str]) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The artifacts' folders below, each with the names that lead to it, sorted.

    Links are not followed; other roots, copies and stores further in are not entered.
    """
    try:
        with machine_errors("look through", folder), os.scandir(folder) as entries:
            found = [each.name for each in entries if each.name == MARKER_NAME or each.is_dir(follow_symlinks=False)]
    except MachineFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return
        raise
    if above and (MARKER_NAME in found or ".dm" in found):
        return
    for name in sorted(found):
        path = folder / name
        if above and is_param_hash(name):
            yield (*above, name), path
        elif not name.startswith(".") and len(above) < _DEPTH_MAX and os.fspath(path) not in others:
            yield from _walk(path, (*above, name), others)


def find_spots(project: Project, text: str) -> list[Spot]:
    """Every folder of the one artifact that ``<cachetype>[/<version>]/<prefix>`` names, the project's own first.

    An address with all digits means just that one. Raises `NotFound` when there is none or several, with the
    candidates; `UsageError` for a text of another form.
    """
    name = parse_artifact_name(text)
    found: dict[str, list[Spot]] = {}
    for spot in list_spots(project):
        if name.names(spot.cachetype, spot.version, spot.hash):
            found.setdefault(spot.address, []).append(spot)
    if not found:
        raise _no_artifact(name)
    if str(name) in found:
        return found[str(name)]  # its whole address: without a version it is the one that has none
    if len(found) > 1:
        addresses = list(found)
        more = f" and {len(addresses) - _NAMED} more" if len(addresses) > _NAMED else ""
        raise NotFound(
            f"'{printable(text)}' names {len(found)} artifacts: {', '.join(map(printable, addresses[:_NAMED]))}{more}",
            hint="write more digits of its hash, or one of them as it stands",
            code="ambiguous",
        )
    (spots,) = found.values()
    return spots


def _no_artifact(name: ArtifactName) -> NotFound:
    told = f"there is no artifact '{printable(str(name))}'"
    return NotFound(told, hint="dm list --kind cached lists them", code="artifact-missing")


class Facts(NamedTuple):
    """What is known of an artifact without reading its data.

    ``state``: ``complete``; ``untracked``, complete and not in this project's state; ``partial``, without its marker;
    ``malformed``, its ``config.toml`` is lost or does not prove that it is what its path says (``fault`` says why);
    ``missing``, recorded and not there. ``entries`` are the names of its data with their bytes (0 for folders),
    ``size_bytes`` and ``files`` those of the whole artifact with its sidecars.
    """

    spot: Spot
    state: str
    fault: str | None = None
    config: Config | None = None
    metadata: Metadata = Metadata()
    entries: Mapping[str, int] = {}
    size_bytes: int | None = None
    files: int | None = None
    ref: Ref | None = None

    @property
    def formats(self) -> list[str]:
        """The endings of its data's names."""
        return sorted({name.rpartition(".")[2] for name in self.entries})


def read_facts(project: Project, spot: Spot) -> Facts:
    """Look at one artifact. What is damaged is said, not raised; `MachineFailed` where the machine fails."""
    if not spot.is_there or spot.folder is None:
        return Facts(spot, "missing")
    folder = spot.folder
    try:
        with machine_errors("look through", folder):
            entries = _read_entries(folder)
    except DmError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Facts(spot, "missing")  # removed meanwhile
        raise
    config, fault = prove(spot)
    state = "complete" if spot.is_recorded else "untracked"
    if entries.pop(MARKER_NAME, None) != 0:
        state, fault = "partial", "it has no marker that says it is complete"
    elif config is None:
        state = "malformed"
    if config is not None:
        spot = spot._replace(cachetype=config.cachetype, version=config.version)
    ref = _read_ref(project, spot)
    size_bytes, files = (None, None) if ref is None else (ref.size_bytes, ref.files)
    if size_bytes is None or files is None:
        with machine_errors("look through", folder):
            size_bytes, files = _count(folder)
    data = {name: size for name, size in entries.items() if name not in SIDECAR_NAMES}
    return Facts(spot, state, fault, config, read_metadata(folder), data, size_bytes, files, ref)


def prove(spot: Spot) -> tuple[Config | None, str | None]:
    """The ``config.toml`` of a folder, when it proves that this is the artifact that its path says; else the reason."""
    from dm.plumbing.records.sidecars import decode_config
    from dm.porcelain.artifacts.looking import read_file

    assert spot.folder is not None
    file = spot.folder / CONFIG_NAME
    try:
        with machine_errors("read", file):
            config = decode_config(read_file(os.fspath(file)), file=file)
    except DmError as error:
        lost = isinstance(error.__cause__, FileNotFoundError)
        return None, f"its '{CONFIG_NAME}' is lost" if lost else error.message
    if make_address(config.cachetype, config.version, config.hash) != spot.address:
        return None, f"its '{CONFIG_NAME}' is of another artifact"
    return config, None


def find_store(spot: Spot) -> Path | None:
    """The store root that a spot's refs are in: the project's own, else the innermost store around it; None where it is
    only read.
    """
    if spot.root is not None:
        return spot.root.store_root
    return None if spot.folder is None else find_store_root(spot.folder)


def _read_ref(project: Project, spot: Spot) -> Ref | None:
    root = find_store(spot)
    if root is None or spot.folder is None:
        return None
    try:
        return project.open_store(root).read_ref(spot.folder)
    except DmError:
        return None  # `verify` says what is wrong with it


def read_metadata(folder: Path) -> Metadata:
    """What is said of where it comes from; nothing where that cannot be read: it decides nothing."""
    from dm.plumbing.records.sidecars import decode_metadata
    from dm.porcelain.artifacts.looking import read_file

    file = folder / METADATA_NAME
    try:
        with machine_errors("read", file):
            return decode_metadata(read_file(os.fspath(file)), file=file)
    except DmError:
        return Metadata()


def _read_entries(folder: Path) -> dict[str, int]:
    """The names in an artifact's folder with their bytes: data, sidecars, marker. Hidden ones, locks and unfinished
    work of others are left out.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name == MARKER_NAME or not (name.startswith(".") or name.endswith((".lock", ".tmp"))):
                status = entry.stat(follow_symlinks=False)
                found[name] = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return dict(sorted(found.items()))


def _count(folder: Path) -> tuple[int, int]:
    """The bytes and number of files below a folder, the marker left out."""
    size_bytes = files = 0
    for above, _, names in os.walk(folder):
        for name in names:
            if name == MARKER_NAME and above == os.fspath(folder):
                continue
            size_bytes += os.lstat(os.path.join(above, name)).st_size
            files += 1
    return size_bytes, files


def means_artifact(project: Project, text: str) -> bool:
    """Whether a name that a user gave is an artifact's: it has the form of one, and no dataset has it.

    Raises `NotFound` when neither has it, and when it fits several.
    """
    if not is_artifact_name(text):
        return False
    if project.manifest.path is None and not project.manifest.datasets:
        find_spots(project, text)
        return True
    try:
        project.manifest.find(text)
    except NotFound as error:
        if error.code == "ambiguous":
            raise
        try:
            find_spots(project, text)
        except NotFound as missing:
            if missing.code == "ambiguous":
                raise
            message = f"there is no dataset and no artifact '{printable(text)}'"
            raise NotFound(message, hint=error.hint, code=error.code) from None
        return True
    return False


def is_artifact_name(text: str) -> bool:
    """Whether a text has the form ``<cachetype>[/<version>]/<prefix>``; a dataset's name may have it too."""
    try:
        parse_artifact_name(text)
    except DmError:
        return False
    return True
