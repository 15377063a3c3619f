"""What a call asks for and where that belongs: its artifact's address, and the places in which it may lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import SourceFailed
from dm.plumbing.formats.loaders import find_saved_loader, find_saver
from dm.plumbing.records.artifact_names import state_key
from dm.plumbing.records.artifact_places import list_other_places, locate_artifact
from dm.plumbing.records.params import hash_plain, make_plain_table
from dm.plumbing.store.layout import find_store_root
from dm.porcelain.artifacts.looking import Place, Wanted
from dm.porcelain.artifacts.pending import refuse_format
from dm.porcelain.artifacts.recipe import Recipe, make_data_name
from dm.porcelain.artifacts.trusting import is_peers_own, may_be_cloned

if TYPE_CHECKING:
    from dm.plumbing.formats.loaders import Loader
    from dm.plumbing.records.location import Location
    from dm.plumbing.records.params import Plain
    from dm.porcelain.project import Project

#: Recipes whose places are remembered. One whose loader is made anew at each call is another one each time.
_KINDS_MAX = 1000

#: Where the artifact of a state key and a hash was last found.
FindRecord = Callable[[str, str], Path | None]


class Kind(NamedTuple):
    """What the calls of one recipe share."""

    recipe: Recipe
    parent: Path
    location: Location
    store_root: Path
    name: str
    key: str
    loader: Loader | None
    may_be_cloned: bool


class Call(NamedTuple):
    """One call: what it asks for, and where that belongs."""

    kind: Kind
    table: Mapping[str, Plain]
    hash: str
    folder: str
    wanted: Wanted


class Calls:
    """The calls of one project. Threads share it; nothing is read or written before a place is looked at."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._kinds: dict[Recipe, Kind] = {}
        self._others: dict[Path, Place] = {}

    def prepare(self, recipe: Recipe, table: Mapping[str, object]) -> Call:
        """What a recipe and a key table ask for.

        Raises `UsageError` for a table that is not plain, `Refused` for unsafe names, `SourceFailed` for a format that
        nobody writes or loads.
        """
        plain = make_plain_table(table)
        hash_text = hash_plain(plain)
        kind = self._kinds.get(recipe)
        if kind is None:
            if len(self._kinds) >= _KINDS_MAX:
                self._kinds.clear()
            kind = self._kinds[recipe] = self._find_kind(recipe, hash_text)
        wanted = Wanted(recipe.cachetype, recipe.version, hash_text, kind.name, recipe.check)
        return Call(kind, plain, hash_text, f"{kind.parent}/{hash_text}", wanted)

    def own_place(self, call: Call) -> Place:
        """The artifact's own place, which is written to."""
        is_users = not call.kind.may_be_cloned
        return Place(call.folder, self._project.open_store(call.kind.store_root), own=True, is_users=is_users)

    def list_places(self, call: Call, find_record: FindRecord | None) -> Iterator[Place]:
        """Where the artifact may lie: its place, where it was last found, then where it is only read."""
        yield self.own_place(call)
        seen = {call.folder}
        for path in self._list_others(call, find_record):
            if os.fspath(path) not in seen:
                seen.add(os.fspath(path))
                yield self._place_of(path)

    def _find_kind(self, recipe: Recipe, hash_text: str) -> Kind:
        name = make_data_name(recipe)
        loader = find_saved_loader(recipe.format, library=recipe.library) if recipe.loader is None else None
        if not recipe.writes_itself:
            if recipe.saver is None and find_saver(recipe.format, library=recipe.library) is None:
                raise refuse_format(recipe)
            if recipe.loader is None and loader is None:
                raise SourceFailed(
                    f"cannot load results of '{recipe.cachetype}': there is no loader for the format '{recipe.format}'",
                    hint="give a 'loader' beside the 'saver'",
                    code="loader-missing",
                )
        place = locate_artifact(
            self._project.places,
            recipe.cachetype,
            recipe.version,
            hash_text,
            cache_dir=recipe.cache_dir,
            store=recipe.store,
            scope=recipe.scope,
        )
        key = state_key(recipe.cachetype, recipe.version)
        return Kind(
            recipe,
            place.folder.parent,
            place.location,
            place.store_root,
            name,
            key,
            loader,
            may_be_cloned(self._project, place.location, recipe.ref),
        )

    def _list_others(self, call: Call, find_record: FindRecord | None) -> Iterator[Path]:
        recipe = call.kind.recipe
        if find_record is not None:
            recorded = find_record(call.kind.key, call.hash)
            if recorded is not None and recorded.name == call.hash:
                yield recorded
        yield from list_other_places(self._project.places, recipe.cachetype, recipe.version, call.hash)

    def _place_of(self, folder: Path) -> Place:
        """A place that is only read; the store that it lies in, if any, has its ref."""
        parent = folder.parent
        known = self._others.get(parent)
        if known is None:
            root = find_store_root(folder)
            store = None if root is None else self._project.open_store(root)
            is_users = is_peers_own(self._project, parent)
            known = self._others[parent] = Place(os.fspath(parent), store, own=False, is_users=is_users)
        return known._replace(folder=os.fspath(folder))
