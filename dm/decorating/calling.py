"""One call of a cached function: find its result, or compute and keep it; in a thread of the caller's or in a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dm.decorating.arguments import PATH_PARAMETER, Call, Parameters
from dm.decorating.sessions import Sessions
from dm.decorating.source import SCHEME, Source
from dm.decorating.storing import ManifestCode, Storing, allow, check_nothing_returned, find_bindings, refuse_unknown
from dm.decorating.telling import CodeChanged, warn
from dm.plumbing.fs.machine import display_path
from dm.plumbing.records.params import Plain, hash_plain

if TYPE_CHECKING:
    from dm.porcelain.artifacts.recipe import Recipe
    from dm.porcelain.artifacts.session import Artifacts, Loaded, Pending
    from dm.porcelain.project import Project

#: What happens when a result was made by other code than the function has now.
CodeChange = Literal["ignore", "warn", "recompute"]
#: So many results are remembered as compared with the code.
_COMPARED_MAX = 10_000


class Maker:
    """All that a cached function does beside computing. Threads and tasks share it."""

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Parameters,
        recipe: Recipe,
        *,
        storing: Storing,
        sessions: Sessions,
        code_changed: CodeChange,
    ) -> None:
        self.parameters = parameters
        self._function = function
        self._recipe = recipe
        self._storing = storing
        self._sessions = sessions
        self._code_changed = code_changed
        self._source = Source(function)
        self._compared: set[Path] = set()
        self._has_warned = False
        self._is_ready = False
        self._from_manifest: tuple[Path, ManifestCode, Recipe] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What goes along where the function itself is pickled, not its name: by joblib and dask, for one that is
        defined in a notebook or script. What this process found out of the manifest stays here.
        """
        return {**self.__dict__, "_compared": set(), "_from_manifest": None}

    # What a call is

    def key(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> dict[str, Plain]:
        """The key table of a call."""
        return self.parameters.bind(args, kwargs).table

    def hash(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> str:
        """The hash of that: 64 hex digits."""
        return hash_plain(self.key(args, kwargs))

    def path(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> Path:
        """Where the call's result is, or will be."""
        artifacts, recipe, _ = self._open()
        return artifacts.path(recipe, self.key(args, kwargs))

    def is_cached(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the call's result is there and vouched for."""
        artifacts, recipe, _ = self._open()
        return artifacts.find(recipe, self.key(args, kwargs)) is not None

    def forget(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> bool:
        """Remove the call's result; whether there was one."""
        artifacts, recipe, _ = self._open()
        return artifacts.forget(recipe, self.key(args, kwargs))

    # Calls

    def call(self, args: tuple[object, ...], kwargs: dict[str, Any], *, fresh: bool = False) -> Any:
        """The result of a call: found, or computed and kept; with ``fresh`` computed in any case."""
        from dm.porcelain.artifacts.session import Loaded

        call = self.parameters.bind(args, kwargs)
        begun = self._begin(call, fresh=fresh)
        if isinstance(begun, Loaded):
            return begun.value
        with begun as pending:
            value = self._function(*call.args, **self._complete(call, pending))
            return self._commit(pending, value)

    async def call_async(self, args: tuple[object, ...], kwargs: dict[str, Any], *, fresh: bool = False) -> Any:
        """The same for a coroutine function. Files and locks are the matter of threads, so that the loop goes on."""
        from dm.decorating.apart import run_apart, run_to_end
        from dm.porcelain.artifacts.session import Loaded

        call = self.parameters.bind(args, kwargs)
        begun = await run_apart(
            lambda should_stop: self._begin(call, fresh=fresh, should_stop=should_stop), give_back=_give_back
        )
        if isinstance(begun, Loaded):
            return begun.value
        with begun as pending:
            coroutine: Awaitable[Any] = self._function(*call.args, **self._complete(call, pending))
            value = await coroutine
            return await run_to_end(lambda: self._commit(pending, value))

    def _begin(
        self, call: Call, *, fresh: bool, should_stop: Callable[[], bool] | None = None
    ) -> Loaded | Pending:
        from dm.porcelain.artifacts.session import Loaded

        artifacts, recipe, code = self._open()
        begun = artifacts.begin(recipe, call.table, fresh=fresh, should_stop=should_stop)
        if isinstance(begun, Loaded) and self._is_outdated(begun):
            if self._code_changed == "warn":
                self._warn(begun)
                return begun
            begun = artifacts.begin(recipe, call.table, fresh=True, should_stop=should_stop)
            if not isinstance(begun, Loaded) and Loaded(None, begun.path).code_digest == self._source.digest():
                begun.abandon()  # another process has computed it meanwhile
                begun = artifacts.begin(recipe, call.table, should_stop=should_stop)
        if code is not None and not isinstance(begun, Loaded):
            _prepare(code, begun)
        return begun

    def _complete(self, call: Call, pending: Pending) -> dict[str, Any]:
        """The keywords that the function gets."""
        if not self._recipe.writes_itself:
            return call.kwargs
        return {**call.kwargs, PATH_PARAMETER: pending.data_path}

    def _commit(self, pending: Pending, value: object) -> object:
        if self._recipe.writes_itself:
            check_nothing_returned(self.parameters.name, value)
        return pending.commit(value)

    # Where, and by what code

    def _open(self) -> tuple[Artifacts, Recipe, ManifestCode | None]:
        """Where a call works, what it asks for there, and what of the manifest that may run."""
        artifacts, project = self._sessions.find()
        if not self._is_ready:
            saver, loader = self._storing.resolve()
            self._recipe = self._recipe._replace(saver=saver, loader=loader, code_digest=self._source.digest())
            self._is_ready = True
        recipe, storing = self._recipe, self._storing
        if not storing.asks_saver and not storing.asks_loader:
            return artifacts, recipe, None
        return artifacts, *self._ask_manifest(project, recipe)

    def _ask_manifest(self, project: Project, recipe: Recipe) -> tuple[Recipe, ManifestCode | None]:
        """The recipe with what the manifest names for its format; the same one while it names the same."""
        bindings = find_bindings(project, self._storing)
        if self._storing.asks_saver and bindings.saver is None:
            raise refuse_unknown(self.parameters.name, recipe.format, "saver")
        if self._storing.asks_loader and bindings.loader is None:
            if recipe.writes_itself:
                return recipe, None
            raise refuse_unknown(self.parameters.name, recipe.format, "loader")
        code = allow(project, bindings, format=recipe.format, version=recipe.version)
        known = self._from_manifest
        if known is None or (known[0], known[1].bindings) != (project.root, bindings):
            recipe = recipe._replace(saver=code.saver or recipe.saver, loader=code.loader or recipe.loader)
            known = self._from_manifest = (project.root, code, recipe)
        return known[2], known[1]

    def _is_outdated(self, loaded: Loaded) -> bool:
        """Whether a result was made by other code than the function has now; asked of each until it was not."""
        if self._code_changed == "ignore" or loaded.path in self._compared or self._has_warned:
            return False
        digest, was = self._source.digest(), loaded.code_digest
        if digest is not None and was is not None and was != digest and was.startswith(f"{SCHEME}:"):
            return True
        if len(self._compared) >= _COMPARED_MAX:
            self._compared.clear()
        self._compared.add(loaded.path)
        return False

    def _warn(self, loaded: Loaded) -> None:
        self._has_warned = True
        warn(
            f"'{self.parameters.name}' has changed since the result in '{display_path(loaded.path.parent)}' was "
            f"computed, which is returned; {self.parameters.name}.fresh(…) computes it again, another version= all of "
            'them, code_changed="recompute" or "ignore" decides for good',
            CodeChanged,
        )


def _prepare(code: ManifestCode, pending: Pending) -> None:
    """Before anything is computed: what of the manifest will run afterwards is there."""
    try:
        code.prepare()
    except BaseException:
        pending.abandon()
        raise


def _give_back(begun: Loaded | Pending) -> None:
    """Nobody waits for it any more."""
    from dm.porcelain.artifacts.session import Loaded

    if not isinstance(begun, Loaded):
        begun.abandon()
