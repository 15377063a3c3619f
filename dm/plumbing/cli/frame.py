"""What every command shares: the options before it, the way errors become lines and exit statuses, the JSON switch.

A command file is options, one block of contradictions, one call. The frame does the rest::

    @frame.command("resolve-name")
    @click.argument("name")
    def resolve_name(session: Session, name: str) -> None: ...
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dm.environment import Environment
from dm.errors import DmError, NotFound, gravest
from dm.progress import SILENT, Progress
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.porcelain.project import Project


class Session:
    """One run of one command: its surroundings, the global options and where it reports to."""

    def __init__(
        self,
        environment: Environment,
        *,
        manifest_path: Path | None = None,
        quiet: bool = False,
        verbose: int = 0,
        color: str = "auto",
        debug: bool = False,
        progress: Progress = SILENT,
        choose_progress: Callable[[Session], Progress] | None = None,
    ) -> None:
        self.choose_progress = choose_progress
        self.environment = environment
        self.manifest_path = manifest_path
        self.quiet = quiet
        self.verbose = verbose
        self.color = color
        self.debug = debug
        self.progress = progress
        self.no_progress = False
        self.command = ""
        self.json = False
        self.exit_status = 0
        self.answered = False
        self._last_hint: str | None = None

    def listen(
        self, *, quiet: bool = False, verbose: int = 0, no_progress: bool = False, color: str | None = None
    ) -> None:
        """Take the options of how much to say, which may stand before the command and after it."""
        self.quiet = self.quiet or quiet
        self.verbose += verbose
        self.no_progress = self.no_progress or no_progress
        self.color = color or self.color
        if self.choose_progress is not None:
            self.progress = self.choose_progress(self)

    def open_project(self, *, trust: bool = False, anywhere: bool = False) -> Project:
        """The project of ``--manifest``, the environment or the folder; `NotFound` when there is none.

        ``trust`` is the option of that name: what the manifest names may run. ``anywhere``: without a manifest it is
        the folder's, for its produced datasets.
        """
        environment, progress = self.environment, self.progress
        if anywhere:
            from dm.porcelain.artifacts.opening import open_project

            return open_project(environment, manifest_path=self.manifest_path, progress=progress, trust=trust)
        from dm.porcelain.project import Project

        return Project.open(environment, manifest_path=self.manifest_path, progress=progress, trust=trust)

    def open_stores(self) -> Project:
        """The same for what is done to stores: it works without a manifest too, on the user's own."""
        from dm.porcelain.project import Project

        return Project.open_anywhere(self.environment, manifest_path=self.manifest_path, progress=self.progress)

    def resolve(self, path: str | Path) -> Path:
        """A path of the command line as an absolute one (after ``-C``); links are not followed."""
        return Path(self.environment.working_folder, path)

    def finish(
        self,
        outcomes: Sequence[Outcome],
        *,
        draw: Callable[[Sequence[Outcome]], None] | None = None,
        fields: Mapping[str, object] | None = None,
        exit_status: int | None = None,
    ) -> None:
        """Show a command's outcomes: the JSON document with ``--json``, else by ``draw``; set the exit status.

        The exit status is the gravest of the outcomes' unless one is given.
        """
        if exit_status is None:
            exit_status = gravest(outcome.exit_status for outcome in outcomes)
        self.exit_status = exit_status
        self.answered = True
        if self.debug:
            _trace(outcomes)
        if self.json:
            from dm.plumbing.cli.output import write_document

            write_document(self.command, outcomes, exit_status=exit_status, fields=fields)
        elif draw is not None:
            draw(outcomes)

    def fail(self, error: DmError) -> None:
        """Say an error in one line and its way out in another; set the exit status."""
        self.answer_failure(error, exit_status=error.exit_status)
        self.say_error(error.message, error.hint)

    def answer_failure(self, error: DmError, *, exit_status: int) -> None:
        """Set the exit status; with ``--json`` write the document of a command that ended early, unless one is out."""
        self.exit_status = exit_status
        if self.json and not self.answered:
            from dm.plumbing.cli.output import write_document

            self.answered = True
            write_document(self.command, (), exit_status=exit_status, error=error)

    def say_error(self, message: str, hint: str | None = None) -> None:
        """``dm: error: …`` and, where there is a way out, ``hint: …``, on stderr.

        A hint that the error before had too is not said again.
        """
        say(f"dm: error: {printable(message)}")
        if hint and hint != self._last_hint:
            say(f"hint: {printable(hint)}")
        self._last_hint = hint

    def note(self, text: str) -> None:
        """One line on stderr, unless ``--quiet``."""
        if not self.quiet:
            say(printable(text))


def _trace(outcomes: Sequence[Outcome]) -> None:
    """The traceback of each failed outcome, with its chain of causes, on stderr."""
    import traceback

    for outcome in outcomes:
        if outcome.error is not None:
            traceback.print_exception(outcome.error)


def say(line: str) -> None:
    """One line to stderr. A stderr that is gone or cannot show a character is no reason to fail."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except UnicodeEncodeError:
        sys.stderr.write(line.encode("ascii", "backslashreplace").decode("ascii") + "\n")
    except OSError:
        return


def command(
    name: str, *, label: str | None = None, json: bool = True, **settings: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command of a function that takes the `Session` first. Adds ``--json`` unless told not to.

    ``label`` is the command's full name where it is one of a group.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_obj
        @functools.wraps(function)
        def call(session: Session, /, **arguments: Any) -> None:
            session.command = label or name
            session.json = bool(arguments.pop("json", False))
            session.debug = arguments.pop("debug") or session.debug
            words = {name: arguments.pop(name) for name in ("quiet", "verbose", "no_progress", "color")}
            if any(words.values()):
                session.listen(**words)
            function(session, **arguments)

        made: click.Command = click.command(name, **settings)(call)  # type: ignore[no-untyped-call]
        made.params += _common_options()
        if json:
            made.params.append(click.Option(["--json"], is_flag=True, help="One JSON document on stdout."))
        return made

    return decorate


def _common_options() -> list[click.Parameter]:
    """The options of how much to say; `dm --help` describes them, each command takes them too."""
    return [
        click.Option(["-q", "--quiet"], is_flag=True, hidden=True),
        click.Option(["-v", "--verbose"], count=True, hidden=True),
        click.Option(["--no-progress"], is_flag=True, hidden=True),
        click.Option(["--color"], type=click.Choice(["auto", "always", "never"]), default=None, hidden=True),
        click.Option(["--debug"], is_flag=True, hidden=True),
    ]


trust_option = click.option(
    "--trust", is_flag=True, help="Run what the manifest names without asking (DATAMANIFEST_TRUST=1 does the same)."
)

nul_option = click.option("-z", "nul", is_flag=True, help="End records with NUL, quote nothing.")


def require(found: object, what: str, *, hint: str | None = None) -> None:
    """Raise `NotFound` when ``found`` is None."""
    if found is None:
        raise NotFound(what, hint=hint)
