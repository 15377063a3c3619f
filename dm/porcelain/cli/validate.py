"""``dm validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.errors import DmError, NotFound, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.plumbing.records.schema import Finding


_KINDS = ["manifest", "state", "config", "artifact-config", "artifact-metadata"]


@command("validate")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--kind", type=click.Choice(_KINDS), help="What the files are.")
def COMMAND(session: Session, files: tuple[str, ...], kind: str | None) -> None:  # noqa: N802
    """Check documents against their schemas: file, line, field, the nearest known name. Exit 1 when anything is off.

    Of a manifest also its URIs' schemes, commands, bindings and requires, without running or importing anything.

    Without FILE the project's manifest, state and config files that exist. The kind of a FILE is told by its name,
    unless --kind is given.
    """
    from dm.porcelain.cli.render import draw_line

    chosen = [(session.resolve(name), kind or _tell_kind(name)) for name in files] or _find_documents(session)
    outcomes, findings = [], []
    for path, found_kind in chosen:
        found = _check(path, found_kind, named=bool(files))
        findings += found
        exit_status = 1 if found else 0
        outcomes.append(Outcome(str(path), "failed" if found else "ok", path=path, exit_status=exit_status))

    def draw(_outcomes: object) -> None:
        for finding in findings:
            field = f"'{printable(finding.field)}': " if finding.field else ""
            hint = f" ({finding.hint})" if finding.hint else ""
            line = "" if finding.line is None else f"{finding.line}:"
            draw_line(f"{finding.file}:{line} {field}{finding.message}{hint}")
        if not findings:
            session.note(f"{len(outcomes)} document{'s' * (len(outcomes) != 1)}, nothing found")

    rows = [
        {"file": str(each.file), "line": each.line, "field": each.field, "message": each.message, "hint": each.hint}
        for each in findings
    ]
    session.finish(outcomes, draw=draw, fields={"findings": rows}, exit_status=1 if findings else 0)


def _check(path: Path, kind: str, *, named: bool) -> list[Finding]:
    """``named``: by the user, who may as well name a pipe."""
    from dm.plumbing.fs.machine import machine_errors
    from dm.plumbing.records.record_file import read_record
    from dm.plumbing.records.schema import Finding, validate

    if not path.exists():
        raise NotFound(f"'{path}' does not exist", code="no-path")
    with machine_errors("read", path):
        data = path.read_bytes() if named else read_record(path).content or b""
    try:
        findings = validate(kind, data, path)
        return _add_faults(findings, data, path) if kind == "manifest" else findings
    except DmError as error:
        # TOML that cannot be read at all: one finding, whose message bears file and line already.
        message = error.message.removeprefix(f"{path}:")
        line, colon, rest = message.partition(": ")
        number = int(line) if colon and line.isdigit() else None
        return [Finding(path, number, "", rest if number is not None else message.strip(), error.hint)]


def _add_faults(findings: list[Finding], data: bytes, path: Path) -> list[Finding]:
    """What is wrong with sources, code and order too, where the manifest can be read at all."""
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.records.plain import quote_key
    from dm.plumbing.records.schema import Finding
    from dm.porcelain.declared import find_faults

    try:
        manifest = Manifest.parse(data, path=path)
    except DmError:
        return findings  # said so
    found = []
    for table, field, error in find_faults(manifest):
        whole = ".".join(quote_key(name) for name in table)
        if not field and any(finding.field.startswith(f"{whole}.") for finding in findings):
            continue  # the schema says of its entries what is wrong
        line = manifest.find_line(table, field or None)
        names = [quote_key(name) for name in (*table, field) if name]
        message = error.message.removeprefix(f"{path}:{line}: ").removeprefix(f"dataset '{printable(table[0])}': ")
        found.append(Finding(path, line, ".".join(names), message, error.hint))
    return sorted([*findings, *found], key=lambda finding: (finding.line or 0, finding.field, finding.message))


def _tell_kind(name: str) -> str:
    from dm.plumbing.records.artifact_names import is_param_hash

    last = Path(name).name
    if last == "config.toml":
        # In an artifact's folder, which is named by its hash, it is a sidecar.
        return "artifact-config" if is_param_hash(Path(name).parent.name) else "config"
    if last == "metadata.toml":
        return "artifact-metadata"
    if last in ("state.toml", ".datamanifest-state.toml", "cached.toml"):
        return "state"
    if last.lower() in ("datamanifest.toml", "datasets.toml"):
        return "manifest"
    raise UsageError(f"cannot tell what '{name}' is by its name", hint=f"--kind says it: {', '.join(_KINDS)}")


def _find_documents(session: Session) -> list[tuple[Path, str]]:
    from dm.plumbing.records.config import CONFIG_NAME
    from dm.plumbing.records.manifest import discover
    from dm.plumbing.records.state import list_state_paths

    environment = session.environment
    manifest = discover(environment.working_folder, environment, session.manifest_path)
    if manifest is None:
        hint = "dm init starts one; dm validate FILE names one"
        raise NotFound("no manifest here", hint=hint, code="manifest-missing")
    root = manifest.parent
    found = [(manifest, "manifest")]
    found += [(path, "state") for path in list_state_paths(root) if path.exists()]
    configs = (root / CONFIG_NAME, environment.user_config_file)
    return found + [(path, "config") for path in configs if path.exists()]
