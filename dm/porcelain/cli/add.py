"""``dm add``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dm.errors import DmError, UsageError
from dm.plumbing.cli.frame import Session, command, trust_option
from dm.values import fail

if TYPE_CHECKING:
    from dm.plumbing.transport.catalogues import RecordFile
    from dm.porcelain.verbs.add import Added


@command("add")
@click.argument("sources", nargs=-1, required=True, metavar="URI|DOI|PATH...")
@click.option("--name", help="The entry's name (default: the file's, without its extension).")
@click.option("--version", help="The data's version; part of its storage key.")
@click.option("--branch", help="Branch, tag or commit of the source.")
@click.option("--format", help="The data's format (default: from the file's suffix).")
@click.option("--extract", is_flag=True, help="Unpack the archive; the folder is the dataset.")
@click.option("--checksum", metavar="ALGO:HEX", help="The publisher's checksum; what arrives must match it.")
@click.option("--doi", metavar="DOI", help="A DOI to note for it (of a record it is noted anyway).")
@click.option("--pick", metavar="GLOB", multiple=True, help="Of a record: only files of such names. Repeatable.")
@click.option("--split", is_flag=True, help="Of a record: an entry for each file, NAME/FILE.")
@click.option("--key", help="The storage key (default: host and path of the URI).")
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
    """Declare data, fetch it, and pin its checksum in the manifest.

    A source is a URI, a path, or the DOI (or page) of a record at Zenodo, figshare, Dataverse, PANGAEA or OSF. Nothing
    stays declared when fetching fails. A path inside the project is declared where it lies; one outside becomes a
    file: URI, bound to this machine. A record of several files becomes one folder, or an entry for each with --split;
    its publisher's checksums are held against what arrives.

    --name, --version, --branch, --checksum, --key and --doi go with one source.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.verbs.add import Added, AddOptions, add

    if len(sources) > 1:
        single = [name for name in ("name", "checksum", "version", "branch", "key", "doi") if fields[name]]
        if single:
            raise UsageError(f"--{single[0]} goes with one source, not with {len(sources)}")
    options = AddOptions(fetch=not no_fetch, **fields)  # type: ignore[arg-type]
    project = session.open_project(trust=trust)
    outcomes, records = [], []
    try:
        for source in sources:
            try:
                added = add(project, source, options)
            except DmError as error:
                if len(sources) == 1:
                    raise
                # What came before it is done, and what comes after may be.
                added = Added([fail(source, error)])
            if not session.json:
                for outcome in added.outcomes:
                    draw_outcome(session, outcome)
                if options.dry_run:
                    _draw_files(added)
            elif added.record is not None:
                records.append(_describe_record(source, added))
            outcomes += added.outcomes
    finally:
        project.close()
    fields_told = {"records": records} if records else None
    session.finish(outcomes, draw=lambda found: draw_summary(session, found), fields=fields_told)


def _draw_files(added: Added) -> None:
    """The files of a record that would be declared, with their sizes."""
    from dm.porcelain.cli.render import draw_line
    from dm.progress import format_size
    from dm.values import printable

    files = [file for entry in added.entries if len(entry.files) > 1 for file in entry.files]
    sizes = [format_size(file.size_bytes) for file in files]
    width = max(map(len, sizes), default=0)
    for file, size in zip(files, sizes, strict=True):
        draw_line(f"  {size:>{width}}  {printable(file.name)}")


def _describe_record(source: str, added: Added) -> dict[str, object]:
    """A record as ``--json`` tells it: what it is, and the files that were chosen (of a failed one: all)."""
    record = added.record
    assert record is not None
    files: list[tuple[str | None, RecordFile]] = [
        (entry.name, file) for entry in added.entries for file in entry.files
    ]
    files = files or [(None, file) for file in record.files]
    return {
        "identifier": source,
        "service": record.service,
        "doi": record.doi,
        "title": record.title,
        "version": record.version,
        "page": record.page,
        "files": [
            {
                "name": file.name,
                "uri": file.uri,
                "bytes": file.size_bytes,
                "checksum": None if file.checksum is None else str(file.checksum),
                "entry": name,
            }
            for name, file in files
        ],
    }
