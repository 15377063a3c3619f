"""Where things live: the location of a dataset with the rule that decided it, folder roots and read pools.

Pure: a `Places` reads nothing but the ladder, the project root and the environment that it was made with. The one
function that looks at the disk is `Places.untrusted_place`, which follows links before something is written.
(SCHEMA.md, "Where things live".)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from dm.environment import Environment
from dm.errors import DmError, Malformed, Refused
from dm.plumbing.records.expressions import BUILT_IN_ROOTS, Expander, Use, split_expression
from dm.plumbing.records.fields import is_symbol
from dm.plumbing.records.ladder import BUILT_IN, DATASET, ENVIRONMENT, Ladder, Rung, Source
from dm.plumbing.records.location import Location, Rule
from dm.plumbing.records.scopes import Scopes
from dm.plumbing.records.untrusted import TrustedRoots, find_foreign_folder, follow_links
from dm.values import Key, find_key_fault, printable

if TYPE_CHECKING:
    from dm.plumbing.fs.link import LinkMode


class Placed(Protocol):
    """What is asked of a dataset to say where it lives."""

    @property
    def name(self) -> str: ...
    @property
    def uris(self) -> tuple[str, ...]: ...
    @property
    def storage_path(self) -> str | None: ...
    @property
    def local_path(self) -> str | None: ...
    @property
    def store(self) -> str | None: ...
    @property
    def scope(self) -> str | None: ...
    @property
    def skip_download(self) -> bool: ...
    @property
    def landing(self) -> Key: ...


class Folder(NamedTuple):
    """A folder in which copies lie by key; ``path`` and ``folder`` are the same, as text and as a path."""

    path: str
    folder: Path
    store_root: Path | None
    scope: str
    rungs: tuple[Rung, ...]

    def place(self, dataset: Placed) -> Location:
        """Where a dataset lies in it."""
        # Joining is a third of the price of parsing the whole path for each of many datasets.
        path = self.folder / dataset.landing.text
        return Location(path, self.store_root, dataset.skip_download, self.scope, self.rungs)


class Places:
    """The ladder's answers as folders. Frozen with its ladder; what many datasets share is computed once."""

    def __init__(
        self,
        ladder: Ladder,
        project_root: Path | None,
        environment: Environment,
        *,
        find_project_name: Callable[[], Rung | None] | None = None,
        manifest: Source | None = None,
    ) -> None:
        """``find_project_name`` gives the name that the project's own files declare (`config.ProjectFiles`);
        ``manifest`` says in messages where a dataset's fields stand.
        """
        self.ladder = ladder
        self.project_root = project_root
        self.environment = environment
        self._manifest = manifest or Source(None, {})
        self._scopes = Scopes(ladder, project_root or environment.working_folder, find_project_name)
        self._expander = Expander(ladder, project_root, environment, self._compose_symbol)
        self._composed: dict[tuple[str, str | None, str | None], Folder] = {}
        self._explicit: dict[str, Folder | None] = {}
        self._pools: dict[str, list[Path]] = {}
        self._pool_folders: list[Folder] | None = None
        self._elsewhere: dict[str | None, list[Folder]] = {}
        self._store_places: list[Location] | None = None
        self._trusted: TrustedRoots | None = None
        # By identity, with the dataset itself so that its id stays its own: a fetch asks five times for each.
        self._located: dict[int, tuple[Placed, Location]] = {}

    # Names

    def expand(self, expression: str, *, used_in: str, key: str | None = None) -> str:
        """An expression with its symbols replaced: ``$NAME``, ``${NAME}``, a leading ``~``.

        ``used_in`` says in messages where the expression stands; ``key`` is what ``$key`` stands for, None where it
        has no meaning. A relative result is left relative. Raises `Malformed` for a symbol that is undefined or that
        reaches itself, naming it and where it was used.
        """
        return self._expander.expand(expression, Use(used_in, key=key))

    def root(self, name: str) -> Path:
        """The folder that a symbol names (``data``, ``cache``, ``repo`` or a user's own). Raises `Malformed`."""
        use = Use(f"the folder root '{name}'")
        return Path(self._expander.anchor(self._expander.resolve(name, use), use))

    def explain(self, name: str) -> list[Rung]:
        """Every rung for a field or symbol, from the first to the last; the one in force has ``wins``."""
        return self.ladder.explain(name)

    def scope(self, kind: str, given: str | None = None) -> str:
        """The scope in force for ``datasets`` or ``cached``: the one ``given`` (``""`` counts), else the ladder's.

        Raises `Refused` for a name that cannot be a scope.
        """
        return self._scopes.find_scope(kind, given)[0]

    def prefix(self, kind: str) -> str:
        """The prefix in force for ``datasets`` or ``cached``. Raises `Refused` for an unsafe one."""
        return self._scopes.find_prefix(kind)[0]

    def project_id(self) -> str:
        """The project's id. Raises `Malformed` when a file that declares it is."""
        return str(self._scopes.find_project_id().value)

    # Locations

    def locate(self, dataset: Placed, *, scope: str | None = None) -> Location:
        """Where a dataset is to live. ``scope`` is a call's own and goes before the dataset's.

        Raises `Malformed` for fields that contradict themselves or an undefined symbol; `Refused` for an unsafe key
        or scope, and for a place inside folders that belong to Git, Mercurial or the tools' own records.
        """
        if scope is None:
            known = self._located.get(id(dataset))
            if known is None:
                known = self._located[id(dataset)] = (dataset, self._locate(dataset, None))
            return known[1]
        return self._locate(dataset, scope)

    def _locate(self, dataset: Placed, scope: str | None) -> Location:
        expression = dataset.storage_path or dataset.local_path
        folder = None
        if expression:
            if dataset.store is not None:
                own = self._own_rung(dataset, "store", dataset.store)
                message = f"'{dataset.name}' has both 'store' and 'storage_path'"
                raise own.fault(message, hint="keep one of them", code="contradiction")
            location = self._locate_expression(dataset, expression)
        elif dataset.skip_download and dataset.uris and dataset.uris[0].startswith("file:"):
            location = self._locate_file(dataset)
        else:
            given = dataset.scope if scope is None else scope
            folder = self.explicit_folder("datasets_dir") if given is None and dataset.store is None else None
            location = (folder or self._compose_for(dataset, given)).place(dataset)
        path, base = str(location.path), self.project_root
        if folder is not None and all(rung.level == ENVIRONMENT for rung in folder.rungs):
            # The caller's own word, as when another tool names its staging folder: only what is below it is looked at.
            path, base = path[len(folder.path.rstrip("/")) :], Path("/")
        reason = find_foreign_folder(path, base)
        if reason is not None:
            raise Refused(
                f"cannot keep '{dataset.name}' at '{printable(str(location.path))}': {reason}",
                hint="give the dataset another 'storage_path' or 'key'",
                code="place-reserved",
            )
        return location

    def locate_in_own_scope(self, dataset: Placed) -> Location | None:
        """Where a dataset goes when another project's copy lies at its location: the composed layout in the project's
        own scope. None when its place is an expression of its own, which no scope moves.
        """
        if dataset.storage_path or dataset.local_path:
            return None
        return self.locate(dataset, scope=self.project_id())

    def _locate_expression(self, dataset: Placed, expression: str) -> Location:
        field = "storage_path" if dataset.storage_path else "local_path"
        own = self._own_rung(dataset, field, expression)
        use = Use(f"'{field}' of '{dataset.name}'", own.fault, scope=dataset.scope)
        head = _find_head(expression)
        if head is not None and not dataset.skip_download:
            root = self._expander.anchor(self._expander.expand(head, use), use)
            return Folder(root, Path(root), Path(root), "", (own, *use.rungs.values())).place(dataset)
        has_key = "$" in expression and (True, "key") in split_expression(expression, use)
        if has_key:
            use.key = str(dataset.landing)
        path = self._expander.anchor(self._expander.expand(expression, use), use)
        managed = has_key and not dataset.skip_download
        return Location(Path(path), None, not managed, "", (own, *use.rungs.values()))

    def _locate_file(self, dataset: Placed) -> Location:
        """A file that the user provides and names by a ``file:`` URI lies where the URI says."""
        from urllib.parse import unquote, urlsplit

        own = self._own_rung(dataset, "uri", dataset.uris[0])
        use = Use(f"'uri' of '{dataset.name}'", own.fault)
        path = self._expander.anchor(unquote(urlsplit(dataset.uris[0]).path), use)
        return Location(Path(path), None, True, "", (own,))

    def explicit_folder(self, name: str) -> Folder | None:
        """The explicit ``datasets_dir`` or ``datacache_dir`` as a folder of copies, None when nobody set it."""
        if name not in self._explicit:
            rung = self.ladder.lookup(name)
            folder = None
            if rung is not None:
                use = Use(f"'{name}'", rung.fault)
                path = self._expander.anchor(self._expander.resolve(name, use), use)
                folder = Folder(path, Path(path), Path(path), "", tuple(use.rungs.values()))
            self._explicit[name] = folder
        return self._explicit[name]

    def named_folder(self, expression: Rung, *, base: Path) -> Folder:
        """The folder that a call names itself: symbols are replaced, a relative one is below ``base``. It is a store
        root, with no scope or prefix of its own. Raises `Malformed` for an undefined symbol.
        """
        use = Use(f"'{expression.name}'", expression.fault)
        path = self._expander.anchor(os.path.join(base, self._expander.expand(str(expression.value), use)), use)
        return Folder(path, Path(path), Path(path), "", (expression, *use.rungs.values()))

    # The composed layout

    def _compose_for(self, dataset: Placed, scope: str | None) -> Folder:
        where = f"'scope' of '{dataset.name}'"
        if dataset.store is None:
            return self._compose("datasets", None, scope, where=where)
        own = self._own_rung(dataset, "store", dataset.store)
        folder = self._compose("datasets", own, scope, where=where)
        return folder._replace(rungs=(own, *folder.rungs[1:]))

    def composed_folder(self, kind: str, store: Rung | None = None, scope: str | None = None) -> Folder:
        """``<root>[/<sub>][/<scope>]/<prefix>`` of ``datasets`` or ``cached``, with what a call gives for ``store``
        (``$folder[/sub/path]``) and ``scope`` before what the ladder says.

        Raises `Malformed` for a bad selector or an undefined symbol, `Refused` for an unsafe scope or prefix.
        """
        folder = self._compose(kind, store, scope)
        return folder if store is None else folder._replace(rungs=(store, *folder.rungs[1:]))

    def _compose_symbol(self, name: str, use: Use) -> tuple[str, tuple[Rung, ...]]:
        kind = "datasets" if name == "datasets_dir" else "cached"
        folder = self._compose(kind, None, use.scope, outer=use, symbol=name)
        return folder.path, folder.rungs

    def _compose(
        self,
        kind: str,
        store: Rung | None,
        scope: str | None,
        *,
        where: str = "'scope'",
        outer: Use | None = None,
        symbol: str = "",
    ) -> Folder:
        """``<root>[/<sub>][/<scope>]/<prefix>``, with the root from ``store``, else the kind's built-in one."""
        known = (kind, None if store is None else str(store.value), scope)
        if known not in self._composed:
            if store is None:
                fallback = Rung("default", "$cache" if kind == "cached" else "$data", BUILT_IN, "built in")
                store = (self.ladder.lookup("default") if kind == "datasets" else None) or fallback
            root, sub, rungs = self._select(store, outer, symbol)
            scope_name, scope_rung = self._scopes.find_scope(kind, scope, where=where)
            prefix, prefix_rung = self._scopes.find_prefix(kind)
            rungs += tuple(rung for rung in (scope_rung, prefix_rung) if rung is not None)
            path = "/".join(part for part in (root.rstrip("/"), sub, scope_name, prefix) if part)
            path = path if path.startswith("/") else f"/{path}"
            self._composed[known] = Folder(path, Path(path), Path(root), scope_name, rungs)
        return self._composed[known]

    def _select(self, own: Rung, outer: Use | None, symbol: str) -> tuple[str, str, tuple[Rung, ...]]:
        """Root folder and sub path of a selector ``$folder[/sub/path]``, with the rungs that gave them. ``outer`` is
        where the symbol stands that means the composed folder, if it is one.
        """
        selector = str(own.value)
        use = Use(f"'{own.name}'", own.fault, rungs={own.name: own})
        if outer is not None:
            use.active = (*outer.active, symbol)
            use.fault = outer.fault if own.file is None else own.fault
        parts = split_expression(selector, use)
        is_name, folder = parts[0]
        alone = is_name and (len(parts) == 1 or parts[1][1].startswith("/"))
        if not alone or not is_symbol(folder) or folder == "project":
            raise own.fault(
                f"'{own.name}' is '{printable(selector)}', which does not begin with a folder as '$data' does",
                hint=_hint_at_selector(selector),
                code="selector-bare",
            )
        root = self._expander.anchor(self._expander.resolve(folder, use), use)
        rest = "/".join(selector.split("/")[1:])
        sub = self._expander.expand(rest, use).rstrip("/") if rest else ""
        reason = find_key_fault(sub) if sub else None
        if reason is not None:
            raise Refused(
                f"unsafe '{own.name}' '{printable(selector)}': {reason}",
                hint="a plain path goes below the folder",
                code="store-unsafe",
            )
        return root, sub, tuple(use.rungs.values())

    # Where else it may lie

    def candidates(self, dataset: Placed) -> list[Location]:
        """The other built-in roots in which the dataset may lie: ``$repo``, ``$data``, ``$cache``, composed, in the
        scope in force. Empty for a place that the user manages.
        """
        location = self.locate(dataset)
        if location.user_managed:
            return []
        there, landing = str(location.path), dataset.landing.text
        folders = self.other_folders(dataset)
        return [folder.place(dataset) for folder in folders if f"{folder.path}/{landing}" != there]

    def other_folders(self, dataset: Placed) -> list[Folder]:
        """The folders of `candidates`, the location's own among them; one list for all datasets of a scope."""
        scope = dataset.scope
        if scope not in self._elsewhere:
            stores = [Rung("store", f"${name}", BUILT_IN, "built in") for name in self._list_built_in_roots()]
            folders = [self._compose("datasets", store, scope) for store in stores]
            self._elsewhere[scope] = list({folder.path: folder for folder in reversed(folders)}.values())[::-1]
        return self._elsewhere[scope]

    def pools(self, kind: str = "datasets") -> list[Path]:
        """The read pools for ``datasets`` or ``cached``, in order, each once. Without a project those that name
        ``$repo`` are left out.
        """
        if kind not in self._pools:
            self._pools[kind] = self._find_pools("datasets_pools" if kind == "datasets" else "datacache_pools")
        return list(self._pools[kind])

    def _find_pools(self, name: str) -> list[Path]:
        rung = self.ladder.lookup(name)
        folders: dict[Path, None] = {}
        for expression in cast("tuple[str, ...]", rung.value) if rung is not None else ():
            use = Use(f"'{name}'", rung.fault if rung is not None else Malformed)
            if self.ladder.lookup("repo") is None and (True, "repo") in split_expression(expression, use):
                continue
            folders[Path(self._expander.anchor(self._expander.expand(expression, use), use))] = None
        return list(folders)

    def pool_candidates(self, dataset: Placed) -> list[Location]:
        """Where the dataset would lie in each read pool. ``store_root`` is set for a pool that is itself one of this
        project's store roots; every other pool is read-only.
        """
        return [folder.place(dataset) for folder in self.pool_folders()]

    def pool_folders(self) -> list[Folder]:
        """The folders of `pool_candidates`, the same for every dataset."""
        if self._pool_folders is None:
            roots = self.store_roots()
            self._pool_folders = [
                Folder(str(pool), pool, pool if pool in roots else None, "", ()) for pool in self.pools()
            ]
        return self._pool_folders

    def store_roots(self) -> list[Path]:
        """The store roots that the ladder names, each once: an explicit ``datasets_dir``, the root of the composed
        layout, an explicit ``datacache_dir``, and the built-in ones. (`locate` gives those of single datasets.)
        """
        return [location.path for location in self.store_places()]

    def store_places(self) -> list[Location]:
        """The same, each with the settings that led to it."""
        if self._store_places is None:
            self._store_places = self._find_store_places()
        return self._store_places

    def _find_store_places(self) -> list[Location]:
        found: dict[Path, Location] = {}
        composed = self._compose("datasets", None, "")
        for folder in (self.explicit_folder("datasets_dir"), composed, self.explicit_folder("datacache_dir")):
            if folder is not None and folder.store_root is not None:
                root = folder.store_root
                found.setdefault(root, Location(root, root, False, folder.scope, folder.rungs))
        for name in self._list_built_in_roots():
            use = Use(f"the folder root '{name}'")
            root = Path(self._expander.anchor(self._expander.resolve(name, use), use))
            found.setdefault(root, Location(root, root, False, "", tuple(use.rungs.values())))
        return list(found.values())

    def _list_built_in_roots(self) -> list[str]:
        return [name for name in BUILT_IN_ROOTS if self.ladder.lookup(name) is not None]

    # Explaining

    def explain_location(self, dataset: Placed) -> list[Rule]:
        """Every rule of the location in order, with the one that wins and why the others do not."""
        winner = self.locate(dataset)
        first = winner.rungs[0] if winner.rungs and winner.rungs[0].level == DATASET else None
        if first is not None and first.name != "store":
            rules = [Rule(first.name, True, f"the dataset sets it: {first.value}", winner.path, winner.rungs)]
        else:
            rules = [Rule("storage_path", False, "the dataset does not set it", None, ())]
        decided = rules[0].wins
        folder = self.explicit_folder("datasets_dir")
        if folder is None:
            rules.append(Rule("datasets_dir", False, "nobody sets it", None, ()))
        else:
            fields = [name for name in ("store", "scope") if getattr(dataset, name) is not None]
            reason = "it is set, and the dataset has neither 'store' nor 'scope'"
            if fields:
                reason = f"the dataset sets '{fields[0]}'"
            elif decided:
                reason = "an earlier rule decides"
            wins = not fields and not decided
            rules.append(Rule("datasets_dir", wins, reason, _find_path(folder, dataset), folder.rungs))
            decided = decided or wins
        if not decided:
            composed = self._compose_for(dataset, dataset.scope)
            return [*rules, Rule("composed", True, "no earlier rule applies", winner.path, composed.rungs)]
        try:
            composed = self._compose_for(dataset, dataset.scope)
        except DmError as error:
            return [*rules, Rule("composed", False, f"an earlier rule decides, and {error.message}", None, ())]
        path = _find_path(composed, dataset)
        return [*rules, Rule("composed", False, "an earlier rule decides", path, composed.rungs)]

    def _own_rung(self, dataset: Placed, field: str, value: str) -> Rung:
        find_line = self._manifest.find_line
        return Rung(
            field,
            value,
            DATASET,
            f'["{dataset.name}"] {field}',
            file=self._manifest.path,
            find_line=None if find_line is None else lambda: find_line((dataset.name,), field),
        )

    # Trust

    def untrusted_place(self, location: Location, *, resolve: Callable[[str], str] = follow_links) -> str | None:
        """Why a location needs the manifest to be trusted before anything is written there; None when it does not.

        A place that comes with a clone (the manifest or the checkout's config decided) has to lie in the project, in
        a built-in root or in a folder that the environment or the user's config names. Links count for where they
        lead: ``resolve`` follows them.
        """
        if self._trusted is None:
            user = self.ladder.for_user_alone()
            own = Places(user, self.project_root, self.environment)
            self._trusted = TrustedRoots(user, own.root, self.project_root)
        return self._trusted.find_reason(location, resolve)

    def untrusted_store(self) -> str | None:
        """The same of the store in force, the first of `store_roots`."""
        return self.untrusted_place(self.store_places()[0])

    # Settings

    def link_modes(self) -> tuple[LinkMode, ...]:
        """The ways to make a working copy, in order."""
        return cast("tuple[LinkMode, ...]", self._setting("link"))

    def stale_age_s(self) -> float:
        """Seconds from which a peer's lock may be stale."""
        return cast(float, self._setting("lock_stale_age"))

    def durable(self) -> bool:
        """Whether what is published is flushed to disk first."""
        return self._setting("durability") == "batch"

    def canonical(self) -> bool:
        """Whether manifests are written in canonical form."""
        return self._setting("canonical") is True

    def jobs(self) -> int | None:
        """Fetches at once; None when nobody set it."""
        return cast("int | None", self._setting("jobs"))

    def number(self, name: str) -> float | int | None:
        """A limit or time by its field's name (``archive_max_bytes``, ``http_timeout``); None when nobody set it."""
        return cast("float | int | None", self._setting(name))

    def text(self, name: str) -> str | None:
        """A field that holds text; None when nobody set it."""
        return cast("str | None", self._setting(name))

    def _setting(self, name: str) -> object:
        rung = self.ladder.lookup(name)
        return None if rung is None else rung.value


def _find_path(folder: Folder, dataset: Placed) -> Path | None:
    """Where a rule that does not decide would put the dataset; None when it has no key to be put at."""
    try:
        return folder.place(dataset).path
    except Refused:
        return None


def _find_head(expression: str) -> str | None:
    """X/ of ``X/$key``, whose X is a store root; None for any other expression."""
    for tail in ("$key", "${key}"):
        head = expression.removesuffix(tail)
        if head != expression and (not head or head.endswith("/")):
            return head
    return None


def _hint_at_selector(selector: str) -> str:
    first, _, rest = selector.partition("/")
    if selector.startswith(("/", "~")):
        return f"give the folder a name: dm config set --global mydata {selector}, then '$mydata'"
    if first and not first.startswith("$"):
        return f"write '${first}{'/' + rest if rest else ''}'"
    return "write '$data', '$cache', '$repo' or a folder of your own"
