"""``datamanifest-dm``: what other tools of the family call when they want `dm` to fetch a dataset.

The contract is SCHEMA.md's, "Other languages"; these options and no others. stdout holds one line, the path of the
copy; everything else goes to stderr, and the exit status is one of docs/cli.md.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.environment import Environment
from dm.plumbing.cli.frame import Session
from dm.plumbing.cli.streams import replace_closed_streams
from dm.porcelain.cli.app import run, start_session

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.project import Project

PROGRAM = "datamanifest-dm"
#: Holds ``--datasets-folder`` for this process: the ladder would replace a ``$`` in it, a variable is taken as it is.
_FOLDER = "DATAMANIFEST_PEER_FOLDER"


def main() -> int:
    """Run ``datamanifest-dm`` on `sys.argv` and return the exit status."""
    replace_closed_streams()
    gc.set_threshold(100_000, 20, 20)  # as dm.__main__ does, and says why
    status = run(sys.argv[1:], PEER, name=PROGRAM)
    gc.freeze()
    return status


def _print_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from dm.version import __version__

        click.echo(f"{PROGRAM} {__version__}")
        context.exit(0)


@click.group(PROGRAM, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, help="The version of dm.", callback=_print_version
)
@click.pass_context
def PEER(context: click.Context) -> None:  # noqa: N802 - a constant: the program
    """Fetch datasets with dm for another tool that reads the same manifest.

    People use `dm fetch`.
    """
    from dm.plumbing.transport.peer_cli import DELEGATED

    environment = Environment.read()
    # Whoever is called by a tool calls none: else two that call each other would go round for ever.
    variables = {**environment.variables, DELEGATED: "1"}
    start_session(context, environment._replace(variables=variables)).listen()


@PEER.command("fetch")
@click.argument("name")
@click.option("--datasets-toml", "manifest", metavar="FILE", required=True, help="The manifest that declares it.")
@click.option("--datasets-folder", "folder", metavar="DIR", help="Where it is to be: DIR/<key>, whatever else is said.")
@click.pass_obj
def fetch(session: Session, name: str, manifest: str, folder: str | None) -> None:
    """Make a dataset be here, verified, and print its path.

    With --datasets-folder it is made to be below DIR, and neither the manifest nor the state is written: who names the
    folder keeps the record. Code that the manifest names runs only when you have allowed it ('dm trust').
    """
    session.command = "fetch"
    if folder is not None:
        place = os.fspath(session.resolve(folder))
        variables = {
            **session.environment.variables,
            "DATAMANIFEST_DATASETS_DIR": f"${{{_FOLDER}}}",
            _FOLDER: place,
        }
        session.environment = session.environment._replace(variables=variables)
    session.manifest_path = session.resolve(manifest)
    from dm.porcelain.cli.apart import keep_results_apart
    from dm.porcelain.cli.render import draw_line

    project = session.open_project()
    try:
        with keep_results_apart():
            path = _fetch(session, project, name, None if folder is None else session.resolve(folder))
    finally:
        project.close()
    if path is not None:
        draw_line(os.fspath(path))


def _fetch(session: Session, project: Project, name: str, folder: Path | None) -> Path | None:
    """Where the dataset's copy is now; None when that failed, which has been said."""
    from dm.errors import NotFound, gravest
    from dm.porcelain.materialize import FetchOptions
    from dm.porcelain.verbs.fetch import fetch as run_fetch

    dataset = project.manifest.find(name)
    own = folder is None
    options = FetchOptions(jobs=project.jobs, edit_manifest=own, record=own)
    outcomes = run_fetch(project, [name], options)
    failures = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failures:
        session.say_error(outcome.message or outcome.status, outcome.hint)
    session.exit_status = gravest(outcome.exit_status for outcome in failures)
    if failures:
        return None
    outcome = next(outcome for outcome in outcomes if outcome.name == dataset.name)
    if outcome.path is None:
        raise NotFound(f"'{dataset.name}' has no copy: {outcome.message or outcome.status}", code="no-copy")
    return outcome.path if folder is None else _bring(project, dataset, outcome.path, folder)


def _bring(project: Project, dataset: Dataset, path: Path, folder: Path) -> Path:
    """The copy at a path, at its place below a folder: linked or copied there when it lies elsewhere."""
    from dm.plumbing.store.publication import Publication
    from dm.porcelain.copies import Copy

    wanted = folder.joinpath(*dataset.landing.parts)
    if Path(os.path.realpath(path)) == Path(os.path.realpath(wanted)):
        return wanted
    store = project.open_store(folder)
    with project.lock_copy(Copy(wanted, store, user_managed=False, notes=project.notes)):
        store.publish([Publication(path, wanted, source_id=dataset.source_id, owned=False)])
    return wanted


if __name__ == "__main__":
    sys.exit(main())
