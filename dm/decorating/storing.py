"""How a result becomes a file and is read back: by a format's built-in pair, the caller's, the manifest's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dm.errors import SourceFailed, UsageError
from dm.plumbing.formats.loaders.kinds import describe_error
from dm.plumbing.fs.machine import display_path
from dm.values import printable

if TYPE_CHECKING:
    from dm.porcelain.project import Project
    from dm.values import Binding, Permission

#: Writes a value to a path that does not exist yet, as a file or a folder; or ``"module:function"``.
Saver = Callable[[Any, Path], object] | str
#: Reads what the saver wrote; or ``"module:function"``.
Loader = Callable[[Path], Any] | str


class Storing(NamedTuple):
    """How one function's results are stored. ``format`` is the ending of their files' names.

    ``saver`` and ``loader`` are None for the built-in ones. ``asks_saver`` and ``asks_loader``: neither the caller nor
    `dm` writes, or reads, this format, so that it is for the manifest to name what does.
    """

    format: str
    saver: Saver | None
    loader: Loader | None
    asks_saver: bool
    asks_loader: bool

    def resolve(self) -> tuple[Callable[[Any, Path], object] | None, Callable[[Path], Any] | None]:
        """The caller's saver and loader as functions. Raises `SourceFailed` (``binding-broken``) for one that cannot
        be imported: that says nothing of the results.
        """
        saver = _import(self.saver, "saver") if isinstance(self.saver, str) else self.saver
        loader = _import(self.loader, "loader") if isinstance(self.loader, str) else self.loader
        return saver, None if loader is None else _telling_what_is_missing(loader)


def choose_storing(
    name: str, data_format: str | None, *, saver: Saver | None, loader: Loader | None, takes_path: bool
) -> Storing:
    """Choose when a function is declared; ``takes_path``: it writes its file itself.

    Without a format it is ``pickle``, and none for a function that writes itself. Raises `UsageError` where nobody
    could write: data without a format. One that `dm` does not know may be in the manifest, which is found at the call.
    """
    from dm.plumbing.formats.loaders import find_loader, find_saver

    if data_format is None:
        data_format = "" if takes_path else "pickle"
    ending = data_format.strip().lstrip(".")
    for option, way in (("saver", saver), ("loader", loader)):
        if not (way is None or isinstance(way, str) or callable(way)):
            raise UsageError(
                f"cannot cache '{name}': its {option} is no function but of type '{type(way).__name__}'",
                hint='give a function, or "module:function"',
                code="cached-declaration",
            )
    if takes_path and saver is not None:
        raise UsageError(
            f"cannot cache '{name}': it takes '_path' and writes itself, and 'saver' would too",
            hint="keep one of them",
            code="cached-declaration",
        )
    asks_saver = saver is None and not takes_path and find_saver(ending) is None
    if asks_saver and not ending:
        raise refuse_unknown(name, ending, "saver")
    asks_loader = loader is None and find_loader(ending) is None
    return Storing(ending, saver, loader, asks_saver, asks_loader)


def find_library(function: Callable[..., Any]) -> str:
    """The library whose tables a function says that it returns (``-> polars.DataFrame``), where one format has several.

    Empty for the usual one, for no annotation, and for one that means nothing when the function is declared.
    """
    from dm.plumbing.formats.loaders import LIBRARIES

    try:
        told = getattr(function, "__annotations__", {}).get("return")
    except NameError:  # evaluated when it is asked for, from Python 3.14 on
        return ""
    if isinstance(told, str):
        first, *others = told.split(".")
        told = getattr(function, "__globals__", {}).get(first)
        for name in others:
            told = getattr(told, name, None)
    if not isinstance(told, type) or told.__name__ != "DataFrame":
        return ""
    library = told.__module__.partition(".")[0]
    return library if library in LIBRARIES else ""


class Bindings(NamedTuple):
    """What a manifest names for a format, where that is asked: each is None where it names none."""

    saver: Binding | None
    loader: Binding | None


def find_bindings(project: Project, storing: Storing) -> Bindings:
    """What the manifest names of what `Storing` asks for; with its saver goes its loader. Raises `Malformed`."""
    from dm.plumbing.records.bindings import list_format_loaders, list_format_savers

    wanted = storing.format.lower()
    saver = loader = None
    if storing.asks_saver:
        saver = next((each for name, each in list_format_savers(project.manifest) if name == wanted), None)
    if storing.asks_loader:
        loader = next((each for name, each in list_format_loaders(project.manifest) if name == wanted), None)
    return Bindings(saver, loader)


class ManifestCode:
    """Calls a manifest's saver and loader of a format, with the permission that it was made with."""

    def __init__(
        self, project: Project, bindings: Bindings, permission: Permission, *, format: str, version: str
    ) -> None:
        self.bindings = bindings
        self._root = project.root
        self._permission = permission
        self._variables = {"format": format, "version": version, "project_root": str(project.root)}

    @property
    def saver(self) -> Callable[[Any, Path], object] | None:
        """The saver as a function."""
        return None if self.bindings.saver is None else self._save

    @property
    def loader(self) -> Callable[[Path], Any] | None:
        """The loader as a function."""
        return None if self.bindings.loader is None else _telling_what_is_missing(self._load)

    def prepare(self) -> None:
        """Import both, so that what runs after hours of computing is what was allowed before them, and is there.

        Raises `SourceFailed` (``binding-broken``).
        """
        from dm.plumbing.formats.bindings import import_function

        for binding in self.bindings:
            if binding is not None:
                import_function(binding, project_root=self._root, permission=self._permission)

    def _save(self, value: Any, path: Path) -> object:
        assert self.bindings.saver is not None
        return self._call(self.bindings.saver, path, lambda function: function(value, str(path)), value=value)

    def _load(self, path: Path) -> Any:
        assert self.bindings.loader is not None
        return self._call(self.bindings.loader, path, lambda function: function(str(path)))

    def _call(
        self, binding: Binding, path: Path, conventional: Callable[[Callable[..., object]], object], **objects: object
    ) -> object:
        from dm.plumbing.formats.bindings import call_binding

        # What a dataset would say is empty here: there is none.
        variables = {**dict.fromkeys(("key", "doi", "branch", "uri"), ""), **self._variables, "path": str(path)}
        return call_binding(
            binding,
            project_root=self._root,
            variables=variables,
            conventional=conventional,
            permission=self._permission,
            objects=objects,
        )


def allow(project: Project, bindings: Bindings, *, format: str, version: str) -> ManifestCode:
    """What calls a manifest's bindings. Raises `Refused` where the user has not allowed what the manifest runs: asked
    at each call, before anything is computed.
    """
    named = [(what, each) for what, each in zip(bindings._fields, bindings, strict=True) if each is not None]
    told = ", ".join(f"{what}: {each.describe()}" for what, each in named)
    action = "load" if bindings.saver is None else "keep"
    permission = project.demand_trust(f"{action} results in the format '{printable(format)}'", told)
    return ManifestCode(project, bindings, permission, format=format, version=version)


def refuse_unknown(name: str, data_format: str, what: str) -> UsageError:
    """What is said where nobody writes, or reads, a format; ``what`` is missing, a ``saver`` or a ``loader``."""
    from dm.plumbing.formats.loaders import FORMATS

    told = f"the format '{printable(data_format)}'" if data_format else "data without a format"
    ways = [f"give a {what}= of your own", f"one of the formats {', '.join(FORMATS)}"]
    if data_format:
        ways.insert(1, f"name one in [_{what.upper()}S] of the manifest")
    return UsageError(
        f"cannot cache '{name}': there is no {what} for {told}",
        hint=", or ".join(ways),
        code="cached-declaration",
    )


def check_nothing_returned(name: str, value: object) -> None:
    """Raise `SourceFailed` when a function that writes its file itself returned something, which would be lost."""
    if value is not None:
        raise SourceFailed(
            f"cannot keep what '{name}' returned, of type '{type(value).__name__}': it takes '_path', so that what it "
            "writes there is its result",
            hint="return nothing; or leave '_path' out and return the value",
            code="cached-returned",
        )


def _telling_what_is_missing(loader: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A loader whose missing library is told as that of a built-in one is, and not taken for broken data."""

    def load(path: Path) -> Any:
        try:
            return loader(path)
        except ImportError as error:
            raise SourceFailed(
                f"cannot load '{display_path(path)}': {describe_error(error)}",
                hint="install what the loader needs",
                code="extra-missing",
            ) from error

    return load


def _import(ref: str, what: str) -> Callable[..., Any]:
    from dm.plumbing.formats.bindings import import_own

    return import_own(ref, origin=f"the {what} of a cached function")
