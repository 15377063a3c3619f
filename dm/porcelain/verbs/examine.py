"""``doctor``: what this installation, its stores and their file systems can do, and what lies about. Changes nothing
but a probe file that is made and removed in a store that exists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import Environment, read_clock_ns
from dm.errors import DmError
from dm.plumbing.fs.machine import machine_errors
from dm.progress import format_size
from dm.version import __version__

if TYPE_CHECKING:
    from dm.plumbing.records.places import Places
    from dm.plumbing.records.trust import Trust
    from dm.plumbing.store.disk import DiskStore

#: A file system's clock that is further off than this makes lock ages and time stamps unreliable, seconds.
CLOCK_SKEW_S = 5.0
_LIBRARIES = ("blake3", "click", "platformdirs", "rich", "tomli_w", "tomlkit", "urllib3", "zstandard")


class Finding(NamedTuple):
    """One line of the examination: about what, ``ok``, ``note`` or ``problem``, the finding, and the way out."""

    topic: str
    verdict: str
    text: str
    hint: str | None = None


def examine(
    environment: Environment, places: Places, stores: list[DiskStore], trust: Trust | None = None
) -> Iterator[Finding]:
    """Yield what is found: the installation first, then the manifest's trust, then each store root."""
    yield from _examine_installation(environment)
    if trust is not None and trust.is_needed():
        yield _examine_trust(trust)
    cache = stores[0].stat_cache if stores else None
    if cache is not None:
        cache.lookup_file(Path("/"))
        fault = cache.fault
        hint = None if fault is None else "it may be deleted; without it unchanged files are read again"
        if fault is None and not _can_be_written(cache.path):
            fault, hint = "it cannot be written: unchanged files are read again each time", "set XDG_CACHE_HOME"
        where = f"{cache.path}" if fault is None else f"{cache.path}: {fault}"
        yield Finding("stat cache", "ok" if fault is None else "note", where, hint)
    for store in stores:
        yield from _examine_store(environment, places, store)


def _can_be_written(path: Path) -> bool:
    """Whether a file can be written, or made with the folders that are missing above it."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)


def _examine_installation(environment: Environment) -> Iterator[Finding]:
    from importlib import metadata

    yield Finding("dm", "ok", f"{__version__}, Python {sys.version.split()[0]}")
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("libraries", "problem", f"{name} is not installed", "install dm again")
    yield Finding("libraries", "ok", ", ".join(versions))
    if not sys.platform.startswith(("linux", "darwin")):
        yield Finding("platform", "problem", f"{sys.platform} is not supported", "use Linux or macOS")
    if os.geteuid() == 0:
        text = "you are root: read-only objects are not protected from you"
        yield Finding("user", "note", text, "work as a user of your own")
    config = environment.user_config_file
    yield Finding("user config", "ok", f"{config}" if config.exists() else f"none ({config})")


def _examine_trust(trust: Trust) -> Finding:
    where = f"manifest {trust.manifest.path}"
    if trust.given:
        return Finding(where, "note", "this run trusts it (DATAMANIFEST_TRUST): its code runs unasked")
    if trust.covers():
        return Finding(where, "ok", "you allowed the code that it names")
    return Finding(where, "note", "it names code, or places outside, that you have not allowed", "dm trust shows it")


def _examine_store(environment: Environment, places: Places, store: DiskStore) -> Iterator[Finding]:
    topic = f"store {store.root}"
    if not store.root.is_dir():
        yield Finding(topic, "ok", "not there yet")
        return
    try:
        is_there = store.exists()
    except DmError as error:
        yield Finding(topic, "problem", error.message, error.hint)
        return
    if not is_there:
        yield Finding(topic, "ok", "a folder without objects so far")
        return
    try:
        yield from _examine_file_system(topic, places, store)
    except DmError as error:
        yield Finding(topic, "problem", error.message, error.hint)
    try:
        yield from _examine_leftovers(environment, topic, places, store)
    except DmError as error:
        yield Finding(topic, "problem", error.message, error.hint)


def _examine_file_system(topic: str, places: Places, store: DiskStore) -> Iterator[Finding]:
    from dm.plumbing.fs.clock import read_file_system_clock_ns
    from dm.plumbing.fs.link import find_link_fault, find_working_modes

    partial = store.meta / "partial"
    if not os.access(partial, os.W_OK):
        yield Finding(topic, "note", "you may not write here: it serves as a pool", None)
        return
    modes = find_working_modes(partial)
    working = [mode for mode in places.link_modes() if modes.get(mode) == "works"]
    told = ", ".join(f"{mode}: {verdict}" for mode, verdict in modes.items())
    if working:
        yield Finding(topic, "ok", f"copies are made by {working[0]} ({told})")
        foreign = _find_foreign_object(store) if working == ["hardlink"] else None
        fault = None if foreign is None else find_link_fault(foreign, partial)
        if fault is not None:
            text = f"copies of another user's objects stand alone: no hard link to them can be made ({fault})"
            yield Finding(topic, "note", text, "a file system with reflinks has no such limit")
    else:
        text = f"neither {' nor '.join(places.link_modes())} works: copies stand alone ({told})"
        yield Finding(topic, "note", text, "dm config set --global link reflink hardlink")
    before_ns = read_clock_ns()
    skew_s = (read_file_system_clock_ns(partial) - before_ns) / 1e9
    if abs(skew_s) > CLOCK_SKEW_S:
        text = f"the file system's clock is {skew_s:+.0f} s off this machine's"
        yield Finding(topic, "problem", text, "set the clocks by NTP: lock ages depend on them")


def _find_foreign_object(store: DiskStore) -> Path | None:
    """An object of another user's, where there is one among the first of each folder."""
    for folder in _list_folder(store.meta / "objects"):
        with machine_errors("look into", folder):
            path = next(folder.iterdir(), None) if folder.is_dir() else None
        if path is not None and path.lstat().st_uid != os.geteuid():
            return path
    return None


def _examine_leftovers(environment: Environment, topic: str, places: Places, store: DiskStore) -> Iterator[Finding]:
    stale_s = places.stale_age_s()
    for name, _ref in store.list_refs():
        lock = store.root / f"{name}.lock"
        try:
            age_s = (read_clock_ns() - lock.stat().st_mtime_ns) / 1e9
        except OSError:
            continue
        if age_s > stale_s:
            text = f"'{lock}' was last touched {age_s:.0f} s ago: its holder is probably dead"
            yield Finding(topic, "note", text, "the next dm that needs it takes it over")
    partials = [path for path in _list_folder(store.meta / "partial") if not path.name.startswith("work-")]
    if partials:
        size_bytes = sum(_measure(path) for path in partials)
        count = len({path.name.partition(".")[0] for path in partials})  # a file and its journal are one
        told = "1 unfinished download" if count == 1 else f"{count} unfinished downloads"
        text = f"{told}, {format_size(size_bytes)}, in '{store.meta / 'partial'}'"
        yield Finding(topic, "note", text, "fetching the same again goes on from them")
    quarantine = store.meta / "quarantine"
    kept = _list_folder(quarantine)
    if kept:
        size_bytes = sum(_measure(path) for path in kept)
        told = "1 thing" if len(kept) == 1 else f"{len(kept)} things"
        text = f"{told} put aside, {format_size(size_bytes)}, in '{quarantine}'"
        yield Finding(topic, "note", text, "look at each note, then delete what nobody needs")


def _list_folder(folder: Path) -> list[Path]:
    with machine_errors("look into", folder):
        return sorted(folder.iterdir()) if folder.is_dir() else []


def _measure(path: Path) -> int:
    with machine_errors("look at", path):
        total = path.lstat().st_size
        for folder, _folders, files in os.walk(path):
            total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
        return total
