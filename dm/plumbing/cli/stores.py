"""Which store a plumbing command works on: ``--root DIR``, else the one in force for the project or the user."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.errors import Malformed, Refused, UsageError
from dm.plumbing.records.location import Location
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.cli.frame import Session
    from dm.plumbing.records.places import Places
    from dm.plumbing.records.trust import Trust
    from dm.plumbing.store.disk import DiskStore

root_option = click.option("--root", metavar="DIR", help="The store root (default: the one in force here).")
only_root_option = click.option("--root", metavar="DIR", help="This store only (default: every one used here).")


def open_places_here(session: Session) -> Places:
    """The places of the manifest here, or the user's own where there is no manifest."""
    return open_trust_here(session)[0]


def open_trust_here(session: Session) -> tuple[Places, Trust | None]:
    """The places here, with the user's trust in the manifest; None where there is no manifest."""
    from dm.plumbing.records.manifest import Manifest, discover
    from dm.plumbing.records.opening import open_places

    environment = session.environment
    path = discover(environment.working_folder, environment, session.manifest_path)
    if path is None:
        return open_places(None, environment), None
    from dm.plumbing.records.trust import Trust, TrustStore, is_given

    manifest = Manifest.read(path)
    places = open_places(manifest, environment)
    store = TrustStore(environment, progress=session.progress)
    return places, Trust(manifest, places, store=store, given=is_given(environment))


def open_store(
    session: Session, root: str | None, *, owner_of: Path | None = None, write: bool = False
) -> DiskStore:
    """The store at ``--root``; else the innermost that holds ``owner_of``; else the one in force here.

    With ``write`` the latter is `Refused` where a manifest, or a checkout's config, chose it outside and the user did
    not allow that.
    """
    from dm.plumbing.store.disk import DiskStore, StoreOptions
    from dm.plumbing.store.layout import find_store_root
    from dm.plumbing.store.statcache import StatCache

    places, trust = open_trust_here(session)
    environment = session.environment
    if root is not None:
        folder = session.resolve(root)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"'{folder}' is not a folder", hint="--root names the folder that holds .dm")
    else:
        found = None if owner_of is None else find_store_root(owner_of)
        folder = found or places.store_roots()[0]
        distrust = places.untrusted_store() if write and found is None else None
        if distrust is not None and not (trust and trust.allows_place(Location(folder, folder, False, "", ()))):
            hint = f"dm trust shows it and asks; or say that it is wanted: --root {shlex.quote(str(folder))}"
            raise Refused(f"cannot write to '{folder}': {distrust}", hint=hint, code="place-untrusted")
    return DiskStore(
        folder,
        options=StoreOptions(places.link_modes(), durable=places.durable(), stale_age_s=places.stale_age_s()),
        stat_cache=StatCache(environment.user_cache_dir / "datamanifest" / "stat-v1.db"),
        host_name=environment.host_name,
        process_id=environment.process_id,
        progress=session.progress,
    )


def parse_digest(text: str, *, bare: str = "blake3") -> Digest:
    """A digest of the command line; bare hex is one of the algorithm ``bare``. Raises `UsageError`."""
    try:
        return Digest.parse(text if ":" in text else f"{bare}:{text}")
    except Malformed as error:
        raise UsageError(error.message, hint=error.hint, code=error.code) from error


def parse_object_id(store: DiskStore, text: str) -> Digest:
    """The id of an object that a store holds, from any digest of it; `NotFound` when it holds none."""
    from dm.errors import NotFound

    digest = parse_digest(text)
    found = store.find_by_digest(digest) if ":" in text else store.find_object(digest.raw)
    if found is None:
        raise NotFound(f"no object {digest} in '{store.root}'", hint="dm list-objects lists them", code="no-object")
    return found
