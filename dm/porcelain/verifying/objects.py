"""The objects of a store are read: all of them, or in several calls as their time allows; when is written down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import format_time, read_clock_ns, read_monotonic_s
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.look_record import LookRecord, read_look, write_look
from dm.plumbing.store.object_look import ExaminedObjects, ObjectLook
from dm.porcelain.verifying.options import VerifyOptions, tell_unread
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.examine import Examiner


class ObjectRound(NamedTuple):
    """One call's part of a look at the objects: what was found, what was known ``before``, when the look ``begun``.

    ``examined`` is None where there is no store, and where its objects were read lately.
    """

    store: DiskStore
    before: LookRecord
    begun: str | None
    examined: ExaminedObjects | None


def read_objects(store: DiskStore, examiner: Examiner, options: VerifyOptions) -> ObjectRound:
    """Read a store's objects. With a deadline, or ``older_than_s``, a look that was cut short is gone on with; without
    either all are read. Objects get half the time where there are copies too. Ctrl-C leaves a note of how far it came.
    """
    before = read_look(Layout(store.root))
    now_ns = read_clock_ns()
    begun: str | None = format_time(now_ns)
    if not store.exists():
        return ObjectRound(store, before, begun, None)
    start = None
    if not options.quick and (options.older_than_s is not None or options.deadline_s is not None):
        start = before.next
    if start is not None:
        begun = before.begun
    elif options.older_than_s is not None and (before.whole or "") > format_time(
        now_ns - int(options.older_than_s * 1_000_000_000)
    ):
        return ObjectRound(store, before, begun, None)
    deadline_s = options.deadline_s
    if deadline_s is not None and store.list_ref_names():
        deadline_s -= max(0.0, deadline_s - read_monotonic_s()) / 2

    def note_stop(examined: ExaminedObjects) -> None:
        # What was found damaged is not told any more: the next look begins with it.
        faults = [*examined.damaged, *examined.unreadable]
        first = min([*faults, *([] if examined.next is None else [examined.next])], default=None)
        if first is not None and (before.next is None or first > before.next):
            record_round(ObjectRound(store, before, begun, examined._replace(next=first)), options, damaged=False)

    look = ObjectLook(start, deadline_s, options.quick, store.stat_cache, note_stop)
    return ObjectRound(store, before, begun, examiner.read_objects(look))


def record_round(done: ObjectRound, options: VerifyOptions, *, damaged: bool) -> None:
    """Write down how far the look came. One with ``damaged`` objects does not count: it is told again next time."""
    examined = done.examined
    if examined is None or options.quick:
        return
    begun = None if damaged else done.begun
    if examined.next is None:
        look = LookRecord(begun or done.before.whole)
    else:
        look = LookRecord(done.before.whole, begun, examined.next)
    write_look(Layout(done.store.root), look)


def tell_round(done: ObjectRound, options: VerifyOptions, *, damaged: bool) -> Iterator[Outcome]:
    """That the objects are sound, and what of them was not read."""
    examined, store = done.examined, done.store
    name = os.fspath(store.root)
    if examined is None:
        if store.exists():
            told = f"its objects are not read again: all were since {done.before.whole}"
            yield Outcome(name, "skipped", path=store.root, state="clean", code="read-lately", message=told)
        return
    sound = len(examined.sound)
    bad = len(examined.damaged) + len(examined.unreadable)
    if not damaged and (sound or not examined.left):
        earlier = len(examined.present) - sound - bad - examined.left
        size_bytes = sum(examined.sound.values())
        told = "1 object is sound" if sound == 1 else f"{sound} objects are sound"
        told += f", {earlier} {'was' if earlier == 1 else 'were'} read by an earlier call" if earlier else ""
        unread = tell_unread(examined.trusted_bytes, size_bytes)
        told += f"; {unread}" if unread else ""
        yield Outcome(name, "ok", path=store.root, state="clean", size_bytes=size_bytes, message=told)
    if examined.left:
        verb = "is" if examined.left == 1 else "are"
        told = (
            f"{examined.left} of {len(examined.present)} objects ({examined.left_bytes} bytes) {verb} still to be read"
        )
        told += ": the time is up" + ("" if options.quick else "; called again, it goes on there")
        path = store.meta / "objects"
        yield Outcome(os.fspath(path), "skipped", path=path, code="time-up", message=told)
