"""``dm``: the table of commands in their two layers, the options before the command, and the exit status.

A command's module is imported when the command is run, never for another one's sake. The table is the one home of the
one-line descriptions.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from dm.environment import Environment
from dm.errors import DmError, MachineFailed, UsageError
from dm.plumbing.cli.frame import Session, say
from dm.values import printable

PORCELAIN = {
    "init": "Start a project: a manifest and its ignore entries.",
    "add": "Declare data by its URI or path, fetch it, pin its checksum.",
    "rm": "Remove entries from the manifest.",
    "fetch": "Make declared data be here, verified.",
    "status": "Say what is off, and which command mends it.",
    "verify": "Read every byte again and compare.",
    "pin": "Take what is on disk as the new contract.",
    "unlock": "Make a private copy of a dataset that can be edited.",
    "lock": "Make an unlocked copy read-only again, verified.",
    "refresh": "Bring what is recorded in line with the disk.",
    "list": "List the declared datasets, or the produced ones.",
    "path": "Print where a dataset is.",
    "show": "Print all that is known of a dataset.",
    "delete": "Remove one produced dataset.",
    "dedup": "Let equal files of working copies share their bytes.",
    "prune": "Remove stored objects that nothing needs any more.",
    "config": "Read and change settings.",
    "trust": "Show what the manifest would run, and allow it.",
    "validate": "Check manifest, state and config against their schemas.",
    "doctor": "Examine this installation, its stores and file systems.",
    "demo": "Run the main job on real data in a scratch folder.",
}
PLUMBING = {
    "hash-object": "Print the digest of files and folders; -w also stores them.",
    "hash-params": "Print the parameter hash of a table.",
    "cat-object": "Print a blob's bytes or a tree's entries.",
    "ls-tree": "Print a tree's entries.",
    "checkout-object": "Make a working copy of an object.",
    "list-objects": "Print each object of a store with its size.",
    "count-objects": "Print the totals of a store.",
    "list-refs": "Print each ref of a store.",
    "update-ref": "Point a ref at an object.",
    "resolve-name": "Print the one dataset that an identifier names.",
    "resolve-path": "Print where a dataset belongs, or is.",
    "resolve-config": "Print settings with the rung they came from.",
    "read-manifest": "Print the manifest as JSON.",
    "read-state": "Print the state as JSON.",
    "write-state": "Merge JSON lines into the state.",
    "fetch-uri": "Download one URI to a place; resumes.",
    "publish": "Move a staged file or folder into its place.",
    "verify-path": "Compare a path with its digest.",
}


class Terminated(BaseException):
    """SIGTERM arrived, or the terminal went away: unwound like Ctrl-C, so that locks are released."""


class Commands(click.Group):
    """The commands of both layers, imported on use and listed apart."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Every command's name."""
        return [*PORCELAIN, *PLUMBING]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of a name; None when there is no such command."""
        layer = "porcelain" if name in PORCELAIN else "plumbing" if name in PLUMBING else None
        if layer is None:
            return None
        import importlib

        module = importlib.import_module(f"dm.{layer}.cli.{name.replace('-', '_')}")
        found: click.Command = module.COMMAND
        return found

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one those are named that do what it says, else its nearest neighbours."""
        name = arguments[0]
        if name not in PORCELAIN and name not in PLUMBING and not name.startswith("-"):
            import difflib

            does = [known for known, text in PORCELAIN.items() if text.split()[0].lower() == name.lower()]
            near = does or difflib.get_close_matches(name, self.list_commands(context), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "dm --help lists the commands"
            raise UsageError(f"there is no command '{name}'", hint=hint)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two layers under their own headings."""
        for heading, commands in (("Porcelain (for people)", PORCELAIN), ("Plumbing (for scripts)", PLUMBING)):
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-C", "folder", metavar="DIR", help="Run as if started in DIR.")
@click.option("--manifest", metavar="FILE", help="The manifest, instead of looking for one.")
@click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
@click.option("-v", "--verbose", count=True, help="Say more (status: clean datasets; fetch: output of code).")
@click.option("--no-progress", is_flag=True, help="No progress bars.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour on the terminal.")
@click.option("--debug", is_flag=True, help="Tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="The version of dm.",
    callback=lambda *a: _print_version(*a),
)
@click.pass_context
def app(
    context: click.Context,
    folder: str | None,
    manifest: str | None,
    quiet: bool,
    verbose: int,
    no_progress: bool,
    color: str,
    debug: bool,
) -> None:
    """A Git-style store for research data.

    `dm init` starts a project, `dm add URI` declares data and fetches it, `dm fetch` makes everything declared be
    here, verified. The options -q, -v, --no-progress, --color and --debug may also stand after the command.
    """
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(f"cannot change to '{folder}': {error.strerror}") from error
    environment = Environment.read()
    start_session(
        context,
        environment,
        manifest_path=None if manifest is None else Path(environment.working_folder, manifest),
        color="never" if color == "auto" and environment.get("NO_COLOR") else color,
        debug=debug,
    ).listen(quiet=quiet, verbose=verbose, no_progress=no_progress)


class _Slot:
    """Holds the session once the global options are read, so that an error can be told as they ask.

    ``json`` says that a document is promised, also when the words are wrong and no command ever ran.
    """

    session: Session | None = None
    json = False


def start_session(context: click.Context, environment: Environment, **settings: Any) -> Session:
    """Make the session of a program that `run` runs, for its commands and for the way its errors are told.

    ``settings`` are `Session`'s own.
    """
    from dm.porcelain.cli.progress_bars import choose_progress

    session = Session(environment, choose_progress=choose_progress, **settings)
    slot: _Slot = context.obj
    slot.session = context.obj = session
    return session


def _print_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from dm.version import __version__

        click.echo(f"dm {__version__}")
        context.exit(0)


def run(arguments: Sequence[str], program: click.Command = app, *, name: str = "dm") -> int:
    """Run one command line and return its exit status (docs/cli.md). Never a traceback without ``--debug``.

    ``program`` is `dm` itself, or another one with a `start_session` of its own; ``name`` is what it calls itself.
    """
    slot = _Slot()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else it is to go on without its terminal (nohup)
        signal.signal(signal.SIGHUP, _terminate)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    slot.json = "--json" in options
    try:
        status: Any = program.main(args=list(arguments), prog_name=name, standalone_mode=False, obj=slot)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return 2
    except click.ClickException as error:
        return _fail(slot, UsageError(_flatten(error.format_message()), hint=_usage_hint(error)), debug=debug)
    except click.exceptions.Abort:
        return _interrupted(slot, 130)
    except DmError as error:
        return _fail(slot, error, debug=debug)
    except BrokenPipeError:
        return _leave_closed_pipe()
    except KeyboardInterrupt:
        return _interrupted(slot, 130)
    except Terminated:
        return _interrupted(slot, 143)
    except RecursionError as error:
        return _bug(slot, error, debug=debug)
    except OSError as error:
        if not _can_write_results():
            return _fail(slot, MachineFailed(f"cannot write the results: {error.strerror}", code="stdout"), debug=debug)
        where = f" '{error.filename}'" if error.filename else ""
        return _fail(slot, MachineFailed(f"{error.strerror or error}{where}"), debug=debug)
    except Exception as error:  # noqa: BLE001 - the last door: anything that gets here is a bug, told as one
        return _bug(slot, error, debug=debug)
    finally:
        _stop_progress(slot)
    if isinstance(status, int) and status:
        return status
    return slot.session.exit_status if slot.session else 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _flatten(text: str) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat[:1].lower() + flat[1:]


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    if context is None:
        return None
    if isinstance(error, click.NoSuchOption) and isinstance(context.command, click.Group):
        return f"the options of a command stand after it; {context.command_path} --help lists those before it"
    return f"{context.command_path} --help"


def _stop_progress(slot: _Slot) -> None:
    stop = getattr(slot.session.progress, "stop", None) if slot.session else None
    if stop is not None:
        stop()


def _fail(slot: _Slot, error: DmError, *, debug: bool) -> int:
    _stop_progress(slot)
    if debug:
        import traceback

        traceback.print_exception(error)
    session = _find_session(slot)
    session.fail(error)
    return session.exit_status


def _find_session(slot: _Slot) -> Session:
    session = slot.session or Session(_NO_ENVIRONMENT)
    session.json = session.json or slot.json
    return session


def _interrupted(slot: _Slot, status: int) -> int:
    _stop_progress(slot)
    word = "interrupted" if status == 130 else "terminated"
    _find_session(slot).answer_failure(DmError(word, code=word), exit_status=status)
    say(f"dm: {word}; what is done is kept, run the same command to go on")
    return status


def _bug(slot: _Slot, error: Exception, *, debug: bool) -> int:
    import traceback

    _stop_progress(slot)
    if debug:
        traceback.print_exception(error)
    fault = f"a bug in dm: {type(error).__name__}: {error}"
    _find_session(slot).answer_failure(DmError(fault, code="bug"), exit_status=70)
    say(f"dm: error: {printable(fault)}")
    say("hint: run the same command with --debug and report what it prints")
    return 70


def _leave_closed_pipe() -> int:
    # The reader (head, a pager) has enough.
    _drop_results()
    return 128 + signal.SIGPIPE


def _can_write_results() -> bool:
    """Whether stdout takes what is still to be written to it; if not, that is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_results()
        return False
    return True


def _drop_results() -> None:
    # Python would complain at exit when it flushes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_NO_ENVIRONMENT = Environment({}, Path("/"), Path("/"), "", 0)
