"""How a result becomes a file and is read back: by a format's built-in pair, the caller's, the manifest's loader."""

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
    from dm.values import Binding

#: Writes a value to a path that does not exist yet, as a file or a folder; or ``"module:function"``.
Saver = Callable[[Any, Path], object] | str
#: Reads what the saver wrote; or ``"module:function"``.
Loader = Callable[[Path], Any] | str


class Storing(NamedTuple):
    """How one function's results are stored. ``format`` is the ending of their files' names.

    ``saver`` and ``loader`` are None for the built-in ones. ``asks_manifest``: neither the caller nor `dm` reads this
    format, so that the loader is the one that the manifest names for it.
    """

    format: str
    saver: Saver | None
    loader: Loader | None
    asks_manifest: bool

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

    Without a format it is ``pickle``, and none for a function that writes itself. Raises `UsageError` for a format that
    nobody writes, which names those that `dm` does.
    """
    from dm.plumbing.formats.loaders import find_loader, find_saver

    if data_format is None:
        data_format = "" if takes_path else "pickle"
    ending = data_format.strip().lstrip(".")
    if takes_path and saver is not None:
        raise UsageError(
            f"cannot cache '{name}': it takes '_path' and writes itself, and 'saver' would too",
            hint="keep one of them",
            code="cached-declaration",
        )
    if saver is None and not takes_path and find_saver(ending) is None:
        raise _unknown(name, ending, "saver")
    asks_manifest = loader is None and find_loader(ending) is None
    return Storing(ending, saver, loader, asks_manifest)


def find_manifest_loader(project: Project, data_format: str) -> tuple[Binding, Callable[[Path], Any]] | None:
    """The loader that the manifest names for a format, with its binding; None when it names none.

    Raises `Refused` where the user has not allowed what the manifest runs: asked at each call, before anything is
    computed.
    """
    from dm.plumbing.records.bindings import list_format_loaders

    wanted = data_format.lower()
    binding = next((each for name, each in list_format_loaders(project.manifest) if name == wanted), None)
    if binding is None:
        return None
    permission = project.demand_trust(f"load results in the format '{data_format}'", f"loader: {binding.describe()}")

    def load(path: Path) -> Any:
        from dm.plumbing.formats.bindings import call_binding

        return call_binding(
            binding,
            project_root=project.root,
            variables={"path": str(path), "format": data_format, "project_root": str(project.root)},
            conventional=lambda function: function(str(path)),
            permission=permission,
        )

    return binding, _telling_what_is_missing(load)


def refuse_unread(name: str, data_format: str) -> UsageError:
    """What is said where a function's own saver writes a format that nobody reads."""
    return _unknown(name, data_format, "loader")


def check_nothing_returned(name: str, value: object) -> None:
    """Raise `SourceFailed` when a function that writes its file itself returned something, which would be lost."""
    if value is not None:
        raise SourceFailed(
            f"cannot keep what '{name}' returned, of type '{type(value).__name__}': it takes '_path', so that what it "
            "writes there is its result",
            hint="return nothing; or leave '_path' out and return the value",
            code="cached-returned",
        )


def _unknown(name: str, data_format: str, what: str) -> UsageError:
    from dm.plumbing.formats.loaders import FORMATS

    told = f"the format '{printable(data_format)}'" if data_format else "data without a format"
    return UsageError(
        f"cannot cache '{name}': there is no {what} for {told}",
        hint=f"give a {what}= of your own, or one of the formats {', '.join(FORMATS)}",
        code="cached-declaration",
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
