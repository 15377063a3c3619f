"""The user's trust in a manifest: what was allowed, whether it is still the same, and the permission to run it.

A manifest that is not yours must not run code on your machine. What it would run is listed part by part
(`dm.plumbing.records.trust_parts`); a user who has seen the list may allow it. The answer is kept in the user's own
configuration folder, one file for each manifest, bound to the manifest's real path. One part that is new or changed,
and nothing of the manifest runs until the user is asked again (SCHEMA.md, "Trust").
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import Environment, format_time, read_clock_ns, read_monotonic_s
from dm.errors import DmError, Malformed, Refused
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.records.trust_parts import KINDS, Part, Parts, allows_place, leads_to_tools
from dm.progress import SILENT, Progress
from dm.values import Permission, printable

if TYPE_CHECKING:
    from dm.plumbing.fs.lock import DocumentLock
    from dm.plumbing.records.location import Location
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.records.places import Places

#: The variable by which a whole run trusts its manifest, for machines without anybody to ask.
TRUST_VARIABLE = "DATAMANIFEST_TRUST"
#: The highest ``_META.schema`` of a record that is understood.
RECORD_SCHEMA = 1
#: With more parts than this, a look at their files counts for ten times as long as it took: thousands of commands
#: would otherwise spend their time on it.
_PARTS_LOOKED_AT_ALWAYS = 1000


class Comparison(NamedTuple):
    """What differs between what was allowed and what is there: parts that are new, parts that changed with what they
    were, and parts that are gone.
    """

    added: tuple[Part, ...]
    changed: tuple[tuple[Part, str], ...]
    removed: tuple[Part, ...]

    @property
    def covers(self) -> bool:
        """Whether all that is there was allowed. What is gone does not matter."""
        return not self.added and not self.changed


class Record(NamedTuple):
    """What a user allowed: the parts by kind and name, and when (RFC 3339). ``is_answer``: the user said so; not where
    ``dm init`` alone made the record.
    """

    parts: Mapping[tuple[str, str], str]
    allowed: str
    is_answer: bool = True

    def compare(self, parts: Iterable[Part]) -> Comparison:
        """What differs from these parts."""
        added, changed, seen = [], [], set()
        for part in parts:
            seen.add((part.kind, part.name))
            was = self.parts.get((part.kind, part.name))
            if was is None:
                added.append(part)
            elif was != part.text:
                changed.append((part, was))
        order = list(KINDS)
        removed = [Part(kind, name, text) for (kind, name), text in self.parts.items() if (kind, name) not in seen]
        removed.sort(key=lambda part: (order.index(part.kind) if part.kind in order else len(order), part.name))
        return Comparison(tuple(added), tuple(changed), tuple(removed))


class _Refusal(NamedTuple):
    reason: str
    hint: str


class TrustStore:
    """The records of one user, in ``<user's config folder>/datamanifest/trust/``: a file for each manifest, named by
    the BLAKE3 of its real path, which only this user may read or write.
    """

    def __init__(self, environment: Environment, *, progress: Progress = SILENT) -> None:
        self.folder = environment.user_config_file.parent / "trust"
        self._holder = f"{environment.process_id} {environment.host_name}"
        self._progress = progress
        self._warned: dict[Path, object] = {}
        self._decoded: dict[Path, tuple[bytes, Record]] = {}

    def path_of(self, manifest: Path) -> Path:
        """The record's file of a manifest."""
        from dm.plumbing import hashing

        return self.folder / f"{hashing.blake3_of(os.fsencode(os.path.realpath(manifest))).hex()}.toml"

    def read(self, manifest: Path) -> Record | None:
        """What this user allowed of a manifest; None when nothing, or when the record cannot be relied upon.

        A record that is malformed, of a newer schema, made for another path or open to other users counts for nothing
        and is told once.
        """
        path = self.path_of(manifest)
        try:
            data = self._read_own(path, manifest)
            if data is None:
                return None
            known = self._decoded.get(path)
            if known is None or known[0] != data:
                known = self._decoded[path] = (data, _decode(data, path, manifest))
            return known[1]
        except DmError as error:
            mine = object()
            if self._warned.setdefault(path, mine) is mine:  # one step: threads read the same record at once
                self._progress.warn(f"{error.message}; the manifest is not trusted")
            return None

    def allow(self, manifest: Path, parts: Iterable[Part], *, is_answer: bool = True) -> None:
        """Record that this user allows exactly these parts of a manifest; what was recorded before goes.

        ``is_answer`` is False where nobody was asked: that the user made the manifest says nothing of others' results.

        Raises `Refused` where the records would lie in the manifest's project, `MachineFailed`. A crash leaves the old
        record or the new one.
        """
        allowed = {(part.kind, part.name): part.text for part in parts}
        self._write(manifest, lambda _known: Record(allowed, "", is_answer))

    def extend(self, manifest: Path, parts: Sequence[Part], *, known: Iterable[Part]) -> None:
        """Add parts to a record that covers ``known``; nothing where it does not. Raises as `allow` does."""

        def add(record: Record | None) -> Record | None:
            if record is None or not record.compare(known).covers:
                return None
            added = {(part.kind, part.name): part.text for part in parts}
            return record._replace(parts={**record.parts, **added})

        self._write(manifest, add)

    def revoke(self, manifest: Path) -> bool:
        """Forget what was allowed of a manifest; whether there was anything."""
        path = self.path_of(manifest)
        if not self.folder.is_dir():
            return False
        with self._lock(path), machine_errors("remove", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return False
        return True

    def _write(self, manifest: Path, choose: Callable[[Record | None], Record | None]) -> None:
        from dm.plumbing.fs.publish import write_file

        self._refuse_own_project(manifest)
        path = self.path_of(manifest)
        self._ensure_folder()
        with self._lock(path):
            record = choose(self.read(manifest))
            if record is not None:
                write_file(path, _encode(manifest, record), mode=0o600)

    def _ensure_folder(self) -> None:
        from dm.plumbing.fs.publish import ensure_folder

        ensure_folder(self.folder)
        with machine_errors("protect", self.folder):
            os.chmod(self.folder, 0o700)

    def _lock(self, path: Path) -> DocumentLock:
        from dm.plumbing.fs.lock import DocumentLock

        return DocumentLock(
            path.with_suffix(".lock"), progress=self._progress, describe="the trust record", holder=self._holder
        )

    def _refuse_own_project(self, manifest: Path) -> None:
        if not self.folder.is_absolute() or _is_below(self.folder, _find_root(manifest)):
            raise Refused(
                f"cannot keep the answer in '{display_path(self.folder)}', which lies in the project: "
                "a clone could bring it along",
                hint="move the manifest into a folder of its own, or set XDG_CONFIG_HOME to a folder outside",
                code="trust-in-project",
            )

    def _read_own(self, path: Path, manifest: Path) -> bytes | None:
        """A record's bytes; None when there is none. Raises `Refused` for one that others may have written."""
        try:
            with machine_errors("read", path):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except DmError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise
        try:
            with machine_errors("read", path), os.fdopen(descriptor, "rb", closefd=False) as stream:
                self._refuse_own_project(manifest)
                for status in (os.fstat(descriptor), os.stat(self.folder)):
                    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
                        hint = f"chmod -R go-w '{display_path(self.folder)}', as its owner"
                        message = f"others may write to the record '{display_path(path)}', or it is another user's"
                        raise Refused(message, hint=hint, code="trust-record-open")
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise Refused(f"the record '{display_path(path)}' is no file", code="trust-record-open")
                return stream.read()
        finally:
            os.close(descriptor)  # not the stream's: it is made of no folder


class Trust:
    """Whether one open manifest is trusted, asked as often as something of it is to run.

    Each answer looks at the files that the code comes from and at the record anew: what changed since is not run.
    """

    def __init__(
        self,
        manifest: Manifest,
        places: Places,
        *,
        store: TrustStore,
        given: bool = False,
        earlier: Trust | None = None,
    ) -> None:
        """``given``: this run trusts the manifest whatever is recorded (``--trust``, ``DATAMANIFEST_TRUST=1``).

        ``earlier`` is that of what the session read before somebody else changed the file, and may still work with:
        it has to be allowed as well.
        """
        self.store = store
        self.given = given
        self.manifest = manifest
        self._earlier = earlier
        self._parts = Parts(manifest, places)
        self._lock = threading.Lock()
        self._parts_known: list[Part] = []
        self._known_until_s = 0.0

    def list_parts(self) -> list[Part]:
        """Every part as it is now. Raises `Refused` when there is too much to look at."""
        with self._lock:
            return self._parts.read()

    def is_needed(self) -> bool:
        """Whether the manifest names any code or place outside. Reads no file."""
        with self._lock:
            return self._parts.are_any()

    def compare(self, parts: Iterable[Part]) -> Comparison | None:
        """How these parts differ from what the user allowed; None when nothing was ever allowed."""
        path = self.manifest.path
        record = None if path is None else self.store.read(path)
        return None if record is None else record.compare(parts)

    def covers(self) -> bool:
        """Whether everything that the manifest would run is allowed; not where there is too much to look at."""
        try:
            return self.given or self._find_refusal() is None
        except Refused:
            return False

    def allows_place(self, location: Location) -> bool:
        """Whether the manifest is trusted and a place outside is among what was allowed."""
        if leads_to_tools(location, self.manifest.project_root):
            return False
        return self.given or (self._find_refusal() is None and allows_place(self.list_parts(), location))

    def demand(self, action: str, runs: str) -> Permission:
        """Permission to run code of the manifest. ``action`` is what needs it ("fetch 'sst'"), ``runs`` what runs.

        Raises `Refused` (exit 6, ``untrusted``) with both when the user has not allowed this, or not all of what the
        manifest would run now.
        """
        refusal = None if self.given else self._find_refusal()
        if refusal is None:
            return Permission(self.manifest.path)
        fault = f"cannot {printable(action)}: it would run {printable(runs)}"
        raise Refused(f"{fault}, and {refusal.reason}", hint=refusal.hint, code="untrusted")

    def demand_of_others(self, action: str, runs: str) -> Permission:
        """As `demand`, for data that is not this user's: that the user began the manifest is no word about it."""
        permission = self.demand(action, runs)
        if self.given or self.is_answered():
            return permission
        fault = f"cannot {printable(action)}: it would run {printable(runs)}"
        raise Refused(f"{fault}, and you have not allowed it", hint="dm trust --yes allows it", code="untrusted")

    def is_answered(self) -> bool:
        """Whether the user has ever said that this manifest may run what it names, in this record."""
        record = None if self.manifest.path is None else self.store.read(self.manifest.path)
        return record is not None and record.is_answer

    def _find_refusal(self) -> _Refusal | None:
        """Why nothing of the manifest may run now; None when it may."""
        earlier = None if self._earlier is None else self._earlier._find_refusal()
        if earlier is not None:
            return earlier
        if self.manifest.path is None:
            hint = "if all of it is yours, pass trust=True where the manifest is made"
            return _Refusal("it is named by a manifest in memory, which is not trusted", hint)
        comparison = self.compare(self._look())
        if comparison is None:
            return _Refusal("you have not allowed what this manifest runs", "dm trust shows all of it, and asks")
        if comparison.covers:
            return None
        return _Refusal(
            f"what this manifest runs has changed since you allowed it: {_summarize(comparison)}",
            "dm trust shows the difference, and asks",
        )

    def _look(self) -> list[Part]:
        with self._lock:
            begun_s = read_monotonic_s()
            if begun_s >= self._known_until_s:
                self._parts_known = self._parts.read()
                if len(self._parts_known) > _PARTS_LOOKED_AT_ALWAYS:
                    self._known_until_s = begun_s + 10 * (read_monotonic_s() - begun_s)
            return self._parts_known


def keep_trust(store: TrustStore, before: Manifest, after: Manifest, places: Places) -> None:
    """Allow what an edit of `dm`'s own changed in a manifest all of whose parts were allowed ``before`` it.

    That is the new checksum of pickled data, and the like: never a place outside, nor a file that changed meanwhile.
    Nothing happens where the user never allowed anything. Raises as `TrustStore.allow` does.
    """
    if after.path is None or store.read(after.path) is None:
        return
    known = Parts(before, places).read()
    texts = {(part.kind, part.name): part.text for part in known}
    new = []
    for part in Parts(after, places).read():
        was = texts.get((part.kind, part.name))
        if part.kind != "place" and (was is None or (was != part.text and part.kind not in ("files", "file"))):
            new.append(part)
    if new:
        store.extend(after.path, new, known=known)


def permit_own(status: os.stat_result) -> Permission | None:
    """Permission to read a file that may run code, where its stat data say that this user wrote it, or root; None for
    another user's.
    """
    return Permission(None) if status.st_uid in (os.geteuid(), 0) else None


def is_given(environment: Environment) -> bool:
    """Whether the environment says that the manifest of this run is trusted: ``DATAMANIFEST_TRUST=1``, nothing else."""
    return environment.get(TRUST_VARIABLE) == "1"


def _summarize(comparison: Comparison) -> str:
    """The first of what is not allowed, and how much more there is."""
    parts = [*comparison.added, *(part for part, _ in comparison.changed)]
    first = f"{parts[0].kind} '{printable(parts[0].name)}'"
    return first if len(parts) == 1 else f"{first} and {len(parts) - 1} more"


def _encode(manifest: Path, record: Record) -> bytes:
    from dm.plumbing.records.toml import dump_canonical

    kinds: dict[str, dict[str, str]] = {}
    for (kind, name), text in record.parts.items():
        kinds.setdefault(kind, {})[_storable(name)] = _storable(text)
    head = {
        "schema": RECORD_SCHEMA,
        "manifest": _storable(os.path.realpath(manifest)),
        "project_root": _storable(os.path.realpath(_find_root(manifest))),
        "allowed": format_time(read_clock_ns()),
        "answer": record.is_answer,
    }
    return dump_canonical({"_META": head, **kinds})


def _decode(data: bytes, path: Path, manifest: Path) -> Record:
    from dm.plumbing.records.toml import read_toml

    document = read_toml(data, file=path)
    head = document.pop("_META", None)
    if not isinstance(head, Mapping) or type(head.get("schema")) is not int:
        raise Malformed("the trust record has no schema", file=path, code="trust-record")
    if head["schema"] != RECORD_SCHEMA:
        message = f"the trust record has schema {head['schema']}, this dm understands {RECORD_SCHEMA}"
        raise Malformed(message, file=path, code="schema-unknown")
    for field, place in (("manifest", manifest), ("project_root", _find_root(manifest))):
        if head.get(field) != _storable(os.path.realpath(place)):
            raise Malformed(f"the trust record is for another '{field}'", file=path, code="trust-record")
    parts: dict[tuple[str, str], str] = {}
    for kind, table in document.items():
        try:
            parts.update({(kind, _restore(name)): _restore(text) for name, text in table.items()})
        except (AttributeError, ValueError):
            message = f"the trust record is malformed at '{printable(kind)}'"
            raise Malformed(message, file=path, code="trust-record") from None
    return Record(parts, str(head.get("allowed", "")), head.get("answer") is True)


def _storable(text: str) -> str:
    """Text that TOML can hold: where it is not UTF-8, its bytes as hex behind a NUL; so too where it begins with one,
    for else a manifest could have one text allowed and another meant.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "\0" + os.fsencode(text).hex()
    return "\0" + text.encode().hex() if text.startswith("\0") else text


def _restore(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text[1:])) if text.startswith("\0") else text


def _find_root(manifest: Path) -> Path:
    return manifest.parent


def _is_below(folder: Path, root: Path) -> bool:
    return f"{os.path.realpath(folder)}/".startswith(f"{os.path.realpath(root).rstrip('/')}/")
