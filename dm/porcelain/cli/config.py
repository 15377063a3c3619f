"""``dm config get|set|unset|list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dm.errors import UsageError
from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.resolve_config import list_setting_names, show_value

if TYPE_CHECKING:
    from dm.plumbing.records.ladder import Rung, Source
    from dm.porcelain.project import Project

COMMAND = click.Group(
    "config",
    help="Read and change settings.\n\nThey come from six rungs, first wins: environment, the checkout's"
    " .datamanifest/config.toml (--local), the manifest's tables for this host and its [_STORAGE] (--project), the"
    " user's config (--global), built in. `dm resolve-config --explain NAME` shows them all.",
)


def _scope_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--local", "scope", flag_value="local", help="The checkout's .datamanifest/config.toml."),
        click.option("--global", "scope", flag_value="global", help="The user's config file."),
        click.option("--project", "scope", flag_value="project", help="The manifest's [_STORAGE]."),
        click.option("--host", metavar="GLOB", help="For hosts whose name matches, only."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command("get", label="config get", short_help="Print a setting's value.")
@click.argument("name")
@_scope_options
def get(session: Session, name: str, scope: str | None, host: str | None) -> None:
    """Print a setting's value: what is in force, or what one file says (--local, --global, --project)."""
    from dm.plumbing.records.config_edit import find_setting
    from dm.porcelain.cli.render import draw_line

    if scope is None:
        if host is not None:
            raise UsageError("--host goes with --local, --global or --project")
        rung = _find_in_force(session, name)
    else:
        rung = find_setting(_read(session, scope), name, host)
    session.finish(
        [], draw=lambda _found: draw_line(show_value(rung.value)), fields={"settings": [_encode(rung)]}
    )


@command("set", label="config set", short_help="Set a setting in one file.")
@click.argument("name")
@click.argument("values", nargs=-1, required=True, metavar="VALUE...")
@_scope_options
def set_(session: Session, name: str, values: tuple[str, ...], scope: str | None, host: str | None) -> None:
    """Set a setting: in the checkout's config, unless --global or --project is given. Comments stay."""
    from dm.plumbing.records.config_edit import check_setting_name, parse_setting

    chosen = scope or "local"
    symbols = [rung.name for rung in _list(_read(session, chosen))]
    check_setting_name(name, chosen, symbols=symbols)  # type: ignore[arg-type]
    _change(session, chosen, name, parse_setting(name, values), host)


@command("unset", label="config unset", short_help="Take a setting out of one file.")
@click.argument("name")
@_scope_options
def unset(session: Session, name: str, scope: str | None, host: str | None) -> None:
    """Remove a setting from one file, so that the next rung decides."""
    from dm.plumbing.records.config_edit import find_setting

    chosen = scope or "local"
    find_setting(_read(session, chosen), name, host)
    _change(session, chosen, name, None, host)


@command("list", label="config list", short_help="List settings and where they come from.")
@_scope_options
def list_(session: Session, scope: str | None, host: str | None) -> None:
    """List the settings in force with the rung each comes from; of one file with --local, --global or --project."""
    from dm.plumbing.cli.stores import open_places_here
    from dm.porcelain.cli.render import draw_table

    if scope is None:
        places = open_places_here(session)
        found = (places.ladder.lookup(name) for name in list_setting_names(places))
        rungs = [rung for rung in found if rung is not None]
    else:
        rungs = [rung for rung in _list(_read(session, scope)) if host is None or rung.host == host]
    rows = [(rung.name, show_value(rung.value), rung.origin) for rung in rungs]

    def draw(_found: object) -> None:
        if rows:
            draw_table(("name", "value", "from"), rows)

    session.finish([], draw=draw, fields={"settings": [_encode(rung) for rung in rungs]})


for each in (get, set_, unset, list_):
    COMMAND.add_command(each)


def _open_project_if_any(session: Session) -> Project | None:
    from dm.errors import NotFound

    try:
        return session.open_project()
    except NotFound:
        return None


def _read(session: Session, scope: str) -> Source:
    from dm.plumbing.records.config_edit import read_scope
    from dm.plumbing.records.ladder import Source

    if scope == "project":
        manifest = session.open_project().manifest
        return Source(manifest.path, manifest.storage, ("_STORAGE",))
    project = _open_project_if_any(session) if scope == "local" else None
    root = None if project is None else project.root
    return read_scope(scope, root, session.environment)  # type: ignore[arg-type]


def _list(source: Source) -> list[Rung]:
    from dm.plumbing.records.config_edit import list_settings

    return list(list_settings(source))


def _find_in_force(session: Session, name: str) -> Rung:
    from dm.errors import NotFound
    from dm.plumbing.cli.stores import open_places_here

    rung = open_places_here(session).ladder.lookup(name)
    if rung is None:
        raise NotFound(f"'{name}' is not set", hint="dm config list shows what is", code="field-unset")
    return rung


def _change(session: Session, scope: str, name: str, value: object, host: str | None) -> None:
    from dm.plumbing.records.config_edit import edit_config, plan_change

    if scope == "project":
        project = session.open_project()
        change: Any = plan_change(name, value, host=host, root=("_STORAGE",))
        project.edit_manifest(lambda _manifest: change)
    else:
        owner = _open_project_if_any(session) if scope == "local" else None
        root = None if owner is None else owner.root
        planned = plan_change(name, value, host=host)
        edit_config(scope, root, session.environment, planned, progress=session.progress)  # type: ignore[arg-type]
    session.finish([])


def _encode(rung: Rung) -> dict[str, object]:
    from dm.plumbing.cli.output import encode_value

    return {"name": rung.name, "value": encode_value(rung.value), "origin": rung.origin}
