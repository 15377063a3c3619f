"""Where produced datasets lie: the folder of one artifact, where else it may be found, all folders to look through.

Pure, as `Places` is. (SCHEMA.md, "Where artifacts live".)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dm.errors import Malformed, Refused, UsageError
from dm.plumbing.records.artifact_names import check_cachetype, check_version, is_param_hash, make_address
from dm.plumbing.records.ladder import ENVIRONMENT, Rung
from dm.plumbing.records.location import Location
from dm.plumbing.records.places import Folder, Places
from dm.plumbing.records.untrusted import find_foreign_folder
from dm.values import printable

#: Where the peers put artifacts when nothing is configured. Read, never written.
PEERS_FOLDER = "$user_cache_dir/datamanifest/projects/$project/cached"


class ArtifactPlace(NamedTuple):
    """Where an artifact is to live: its ``folder``, and the ``store_root`` that holds its objects and refs.

    ``scope`` is ``""`` where none applies; ``rungs`` are the settings that decided, a call's own first.
    """

    store_root: Path
    folder: Path
    scope: str = ""
    rungs: tuple[Rung, ...] = ()

    @property
    def location(self) -> Location:
        """The same as `Places.untrusted_place` takes it: nothing is written before that allows it."""
        return Location(self.folder, self.store_root, False, self.scope, self.rungs)


class ArtifactRoot(NamedTuple):
    """A folder in which artifacts may lie as ``<cachetype>[/<version>]/<hash>``; ``store_root`` is None for one that is
    only read. ``scope`` and ``rungs`` as of `ArtifactPlace`.
    """

    folder: Path
    store_root: Path | None
    scope: str = ""
    rungs: tuple[Rung, ...] = ()

    def locate(self, folder: Path) -> Location:
        """An artifact's folder in it, as `Places.untrusted_place` takes it."""
        return Location(folder, self.store_root, False, self.scope, self.rungs)


def locate_artifact(
    places: Places,
    cachetype: str,
    version: str,
    hash: str,
    *,
    cache_dir: str | Path | None = None,
    store: str | None = None,
    scope: str | None = None,
) -> ArtifactPlace:
    """Where an artifact is to live.

    The first that applies: the call's ``cache_dir`` (symbols are replaced, a relative one is below the working
    folder); ``datacache_dir`` on the ladder, unless the call gives ``store`` or ``scope``; composed,
    ``<root>[/<sub>][/<scope>]/<prefix>`` with the root from ``store`` (``$folder[/sub/path]``), else ``$cache``. Below
    it ``<cachetype>[/<version>]/<hash>``.

    Raises `UsageError` for a ``cache_dir`` with ``store`` or ``scope``; `Refused` for an unsafe cachetype, version or
    scope, and for a place in folders of other tools; `Malformed` for an undefined symbol or a bad selector. Whether the
    place needs trust is another question: `ArtifactPlace.location`.
    """
    address = _make_safe_address(cachetype, version, hash)
    base = _find_folder(places, cache_dir, store, scope)
    folder = base.folder / address
    # What the environment or the call itself names may lie anywhere, as for datasets.
    if any(rung.level != ENVIRONMENT for rung in base.rungs):
        reason = find_foreign_folder(base.path, places.project_root)
        if reason is not None:
            raise Refused(
                f"cannot keep artifacts in '{printable(base.path)}': {reason}",
                hint="set another 'datacache_dir', or give the call a 'cache_dir'",
                code="place-reserved",
            )
    return ArtifactPlace(base.store_root or base.folder, folder, base.scope, base.rungs)


def _make_safe_address(cachetype: str, version: str, hash: str) -> str:
    check_cachetype(cachetype)
    check_version(version)
    if not is_param_hash(hash):
        raise UsageError(f"'{printable(hash)}' is no parameter hash of 64 hex digits", code="hash-malformed")
    return make_address(cachetype, version, hash)


def _find_folder(places: Places, cache_dir: str | Path | None, store: str | None, scope: str | None) -> Folder:
    if cache_dir is not None:
        if store is not None or scope is not None:
            given = "store" if store is not None else "scope"
            message = f"'cache_dir' and '{given}' contradict each other: 'cache_dir' is used as it is"
            raise UsageError(message, hint="keep one of them", code="contradiction")
        if not os.fspath(cache_dir):
            raise UsageError("'cache_dir' is empty", hint="leave it out, or name a folder", code="contradiction")
        return places.named_folder(_own_rung("cache_dir", cache_dir), base=places.environment.working_folder)
    if store is None and scope is None:
        explicit = places.explicit_folder("datacache_dir")
        if explicit is not None:
            return explicit
    return places.composed_folder("cached", None if store is None else _own_rung("store", store), scope)


def _own_rung(name: str, value: str | Path) -> Rung:
    """What the running code says itself: as free as the environment, whose process it is."""
    return Rung(name, os.fspath(value), ENVIRONMENT, f"the call's '{name}'")


def list_other_places(places: Places, cachetype: str, version: str, hash: str) -> list[Path]:
    """Where else the artifact may be found, in order, each once: the read pools (``datacache_pools``), then the peers'
    own folder. Nothing is written there.

    Raises as `locate_artifact` for unsafe names, and `Malformed` for a pool with an undefined symbol.
    """
    address = _make_safe_address(cachetype, version, hash)
    return [folder / address for folder in _list_read_only(places)]


def list_artifact_roots(places: Places) -> list[ArtifactRoot]:
    """Every folder in which this project's artifacts may lie, each once, the one for new ones first: an explicit
    ``datacache_dir``, the composed folder in ``$cache``, then those that are only read. What lies elsewhere (a call's
    own ``cache_dir``, ``store`` or ``scope``) is known to the state.
    """
    folders = [places.explicit_folder("datacache_dir"), places.composed_folder("cached")]
    roots: dict[Path, ArtifactRoot] = {}
    for each in folders:
        if each is not None:
            store_root = each.store_root or each.folder
            roots.setdefault(each.folder, ArtifactRoot(each.folder, store_root, each.scope, each.rungs))
    for folder in _list_read_only(places):
        roots.setdefault(folder, ArtifactRoot(folder, None))
    return list(roots.values())


def _list_read_only(places: Places) -> list[Path]:
    folders = dict.fromkeys(places.pools("cached"))
    try:
        peers = places.expand(PEERS_FOLDER, used_in="the peers' folder")
    except Malformed:
        return list(folders)
    folders[Path(os.path.normpath(peers))] = None
    return list(folders)
