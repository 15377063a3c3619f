"""``dm add``."""

from __future__ import annotations

import click

from dm.errors import UsageError
from dm.plumbing.cli.frame import Session, command, trust_option


@command("add")
@click.argument("sources", nargs=-1, required=True, metavar="URI|PATH...")
@click.option("--name", help="The entry's name (default: the file's, without its extension).")
@click.option("--version", help="The data's version; part of its storage key.")
@click.option("--branch", help="Branch, tag or commit of the source.")
@click.option("--format", help="The data's format (default: from the file's suffix).")
@click.option("--extract", is_flag=True, help="Unpack the archive; the folder is the dataset.")
@click.option("--checksum", metavar="ALGO:HEX", help="The publisher's checksum; what arrives must match it.")
@click.option("--store", metavar="$ROOT[/SUB]", help="The folder root to store below (quote the $).")
@click.option("--scope", help="Partition of the store.")
@click.option("--lazy", is_flag=True, help="To be opened at its source: declared, not fetched.")
@click.option("--no-fetch", is_flag=True, help="Only declare.")
@click.option("--overwrite", is_flag=True, help="Replace an entry of the same name.")
@click.option("--dry-run", is_flag=True, help="Only say what would be declared, and where it would be.")
@trust_option
def COMMAND(  # noqa: N802 - the name that the table of commands imports
    session: Session, sources: tuple[str, ...], no_fetch: bool, trust: bool, **fields: object
) -> None:
    """Declare data by its URI or path, fetch it, and pin its checksum in the manifest.

    Nothing stays declared when fetching fails. A path inside the project is declared where it lies; one outside
    becomes a file: URI, bound to this machine. --name, --version, --branch and --checksum go with one source.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.verbs.add import AddOptions, add

    if len(sources) > 1:
        single = [name for name in ("name", "checksum", "version", "branch") if fields[name]]
        if single:
            raise UsageError(f"--{single[0]} goes with one source, not with {len(sources)}")
    options = AddOptions(fetch=not no_fetch, **fields)  # type: ignore[arg-type]
    project = session.open_project(trust=trust)
    outcomes = []
    try:
        for source in sources:
            outcome = add(project, source, options)
            if not session.json:
                draw_outcome(session, outcome)
            outcomes.append(outcome)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_summary(session, found))
