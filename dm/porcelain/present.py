"""What is there already: used as it is, taken over, gone around, or in the way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dm.errors import ContentMismatch, MachineFailed, Malformed, Refused
from dm.plumbing.store.measure import measure_checksum
from dm.porcelain.find import Candidate, Weighed, find_candidates, is_edited, is_unproven, weigh
from dm.porcelain.integrity import Standing, describe_damage, find_contract, name_way_out
from dm.porcelain.publish import adopt, put_unlocked_aside
from dm.porcelain.recording import Recorder
from dm.porcelain.select import find_skip_reason
from dm.porcelain.unlocked import make_edited
from dm.porcelain.uris import is_repository
from dm.values import Digest, Outcome, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.location import Location
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class Presence:
    """Looks for the copies of one run's datasets. Of a dry run nothing is written."""

    def __init__(self, project: Project, recorder: Recorder, *, dry_run: bool) -> None:
        self.project = project
        self.recorder = recorder
        self.dry_run = dry_run

    def look(self, dataset: Dataset, collides: Sequence[str] | None, *, force: bool) -> Outcome | Location:
        """The outcome of a dataset that needs nothing, or where it is to be brought.

        ``collides`` are the datasets that would land on it, ``force`` says that its source is gone to in any case.
        Raises `Malformed`, `Refused` and `ContentMismatch` for what is in the way.
        """
        project = self.project
        skipped = find_skip_reason(dataset)
        if skipped is not None:
            return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
        if collides:
            names = ", ".join(f"'{name}'" for name in collides)
            raise Malformed(
                f"'{dataset.name}' and {names} would land on each other at '{dataset.landing}'",
                hint=f"set a 'key' of its own for [{dataset.name}]",
                code="key-collision",
            )
        location = project.locate(dataset)
        obstacle: Weighed | None = None
        for candidate in find_candidates(project, dataset):
            is_at_location = candidate.copy.path == location.path
            if force and not is_at_location:
                continue
            weighed = weigh(project, dataset, candidate, progress=project.progress)
            if weighed.verdict in ("use", "adopt") and not force:
                return self.use(dataset, weighed, location)
            if is_edited(weighed) and not force:
                return make_edited(dataset, candidate.copy)
            if is_at_location:
                obstacle = weighed
            elif weighed.verdict == "wrong":
                path = candidate.copy.path
                project.progress.warn(f"passing over '{path}': its bytes are not those of '{dataset.name}'")
        if obstacle is not None:
            found = self.pass_obstacle(dataset, location, obstacle, force=force)
            if isinstance(found, Outcome):
                return found
            location = found
        refuse_untrusted_place(project, dataset, location)
        return location

    def refresh(self, dataset: Dataset) -> Outcome:
        """Bring what is recorded of a dataset in line with the disk; nothing is fetched and no data changes.

        A copy that may be used is recorded, marked and known by its ref; a record that leads to nothing goes. What
        nothing vouches for, or differs, stays as it is, and the outcome says so. Raises as `look` does, but for what is
        in the way.
        """
        project = self.project
        skipped = find_skip_reason(dataset)
        if skipped is not None:
            return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
        location = project.locate(dataset)
        unfit: Weighed | None = None
        for candidate in find_candidates(project, dataset):
            weighed = weigh(project, dataset, candidate, progress=project.progress)
            if is_edited(weighed):
                return make_edited(dataset, candidate.copy)
            if weighed.verdict in ("use", "adopt"):
                told = self._tell_news(dataset, weighed)
                outcome = self.use(dataset, weighed, location)
                return outcome._replace(status="ok", message=told) if told else outcome
            if unfit is None and (candidate.recorded or candidate.how == "location"):
                unfit = weighed
        record = project.state.datasets.get(dataset.key.text)
        if record is not None and not os.path.lexists(project.root / record.storage_path):
            if not self.dry_run:
                self.recorder.note_gone(dataset.key.text)
            told = f"it is not at '{project.root / record.storage_path}' any more"
            done = "its record would go" if self.dry_run else "its record is gone"
            return Outcome(dataset.name, "ok", state="missing", message=f"{told}: {done}")
        if unfit is None:
            return Outcome(dataset.name, "skipped", state="missing", message="it is not there")
        copy, standing = unfit.candidate.copy, unfit.standing
        reason = "nothing vouches for its bytes"
        if standing is not None and False in (standing.meets_contract, standing.as_last_seen):
            reason = describe_damage(project, dataset, copy, standing)
        message = f"left as it is: {reason}; dm status tells the way out"
        return Outcome(dataset.name, "skipped", path=copy.path, message=message)

    def _tell_news(self, dataset: Dataset, weighed: Weighed) -> str | None:
        """What of a copy that may be used is to be written down; None: all is known."""
        copy, standing = weighed.candidate.copy, weighed.standing
        news = []
        if weighed.verdict == "adopt" and standing is not None:
            if not copy.is_marked():
                news.append("marked as complete")
            if standing.as_last_seen is not True:
                was = " (it was replaced)" if standing.as_last_seen is False else ""
                news.append(f"known as {standing.measured.digest.short}{was}")
        if self.recorder.is_news(dataset, copy):
            news.append("recorded")
        if not news:
            return None
        return ("would be " if self.dry_run else "") + ", ".join(news)

    def retire_unlocked(self, dataset: Dataset, replacement: Path) -> None:
        """A dataset was fetched anew by force: its unlocked copy elsewhere, which it stood for until now, goes aside.

        One with the same bytes as its replacement is removed.
        """
        for candidate in list(find_candidates(self.project, dataset)):
            copy = candidate.copy
            if copy.path == replacement or candidate.how not in ("state", "scope") or not copy.is_unlocked():
                continue
            put_unlocked_aside(self.project, dataset, copy, replacement)

    def pass_obstacle(
        self, dataset: Dataset, location: Location, obstacle: Weighed, *, force: bool
    ) -> Outcome | Location:
        """Where to go although something lies at the location. Raises when there is no way but ``--force``, and for a
        folder in which other copies lie.

        Another project's copy is left alone, also with ``--force``: this dataset goes to the project's own scope, or
        is there already. One that only its source can prove is fetched anew: it stays where its bytes are equal.
        """
        there = obstacle.candidate.copy
        if there.store is not None:
            there.store.refuse_copies_below(there.path)
        if obstacle.verdict != "foreign":
            if not force and not is_unproven(obstacle):
                self._refuse_obstacle(dataset, obstacle)
            return location
        own = self.project.locate_in_own_scope(dataset)
        if own is None or own.path == location.path:
            raise Refused(
                f"cannot fetch '{dataset.name}': '{location.path}' is the copy of another source or project",
                hint="set 'scope' or 'key' for it",
                code="foreign-copy",
            )
        copy = self.project.copy_at(own)
        if copy.exists():
            weighed = weigh(self.project, dataset, Candidate(copy, "location", recorded=True))
            if weighed.verdict in ("use", "adopt") and not force:
                return self.use(dataset, weighed, own)
            if not force and not is_unproven(weighed):
                self._refuse_obstacle(dataset, weighed)
            return own
        self.project.progress.note(
            f"'{location.path}' is the copy of another source or project; '{dataset.name}' goes to '{own.path}'"
        )
        return own

    def use(self, dataset: Dataset, weighed: Weighed, location: Location, *, locked: bool = False) -> Outcome:
        """Take a copy that is there; mark and record it where that is still to be done."""
        copy, standing = weighed.candidate.copy, weighed.standing
        if not self.dry_run:
            if weighed.verdict == "adopt" and standing is not None and self._may_adopt(dataset, copy):
                with nullcontext() if locked or copy.user_managed else self.project.lock_copy(copy):
                    if not locked:
                        standing = self._weigh_again(dataset, weighed)
                    adopt(copy, dataset, standing.measured)
            if self.recorder.is_news(dataset, copy):
                self._clear_leftovers(dataset, copy, locked=locked)
            self._note_present(dataset, copy, standing)
        measured = None if standing is None else standing.measured
        return Outcome(
            dataset.name,
            "unchanged",
            path=copy.path,
            state="clean" if copy.path == location.path else "relocated",
            digest=None if measured is None else measured.digest,
            size_bytes=None if measured is None else measured.size_bytes,
        )

    def _clear_leftovers(self, dataset: Dataset, copy: Copy, *, locked: bool) -> None:
        """Tidy up after a run that was killed between publishing a copy and recording it: its lock, its staging."""
        if copy.store is None or not (os.path.lexists(f"{copy.path}.lock") or copy.store.has_partials()):
            return
        from dm.porcelain.staging import find_staging

        # Who holds the lock now is alive, or another tool: then it is theirs to tidy up.
        with suppress(MachineFailed):
            with nullcontext() if locked else self.project.lock_copy(copy, should_stop=lambda: True):
                find_staging(self.project, dataset, copy).clear()
                if copy.store.has_partials():
                    copy.store.clear_abandoned()

    def _may_adopt(self, dataset: Dataset, copy: Copy) -> bool:
        """Whether the marker and the ref of a copy may be written; raises `Refused` where it cannot do without."""
        distrust = self.project.find_distrust(dataset, copy)
        if distrust is not None and not copy.is_marked():
            refuse_untrusted_place(self.project, dataset, self.project.locate(dataset)._replace(path=copy.path))
        return distrust is None

    def _weigh_again(self, dataset: Dataset, weighed: Weighed) -> Standing:
        """What a copy is worth now that its lock is ours."""
        again = weigh(self.project, dataset, weighed.candidate)
        if again.verdict not in ("use", "adopt") or again.standing is None:
            path = weighed.candidate.copy.path
            raise Refused(f"'{path}' changed while it was looked at", hint="run the command again", code="place-taken")
        return again.standing

    def _refuse_obstacle(self, dataset: Dataset, obstacle: Weighed) -> NoReturn:
        """Say why what lies at a place is neither used nor overwritten."""
        path, name = obstacle.candidate.copy.path, quote_word(dataset.name)
        if obstacle.verdict != "wrong" or obstacle.standing is None:
            raise Refused(
                f"cannot fetch '{dataset.name}': '{path}' holds data that nothing vouches for",
                hint=f"move it away, or dm fetch --force {name} puts it aside and fetches",
                code="place-taken",
            )
        damage = describe_damage(self.project, dataset, obstacle.candidate.copy, obstacle.standing)
        raise ContentMismatch(
            f"cannot use '{path}' for '{dataset.name}': {damage}",
            hint=name_way_out(dataset),
            code="copy-damaged",
        )

    def _note_present(self, dataset: Dataset, copy: Copy, standing: Standing | None) -> None:
        """Record a copy that was there; complete an entry that a killed run left without its contract."""
        contract = find_contract(dataset)
        proven = standing is not None and standing.meets_contract and contract is not None
        sha256 = contract.hex if proven and contract is not None and contract.algorithm == "sha256" else None
        self.recorder.note_place(dataset, copy, sha256=sha256)
        if standing is None:
            return
        measured = standing.measured
        if find_contract(dataset) is None:
            cache, fields = self.project.stat_cache, _pin_tree(measured.digest)
            if not (fields and dataset.uris and is_repository(dataset.uris[0])):  # whose checksum means something else
                checksum = measure_checksum(copy.path, "sha256", stat_cache=cache, quick=True).checksum
                fields |= {} if checksum is None else {"checksum": str(checksum)}
            self.recorder.note_fields(dataset, fields)
        elif dataset.digest is None and standing.meets_contract:
            self.recorder.note_fields(dataset, _pin_tree(measured.digest))


def _pin_tree(digest: Digest) -> dict[str, str]:
    return {"digest": str(digest)} if digest.is_tree else {}


def refuse_untrusted_place(project: Project, dataset: Dataset, location: Location) -> None:
    """Raise `Refused` for a place outside that a manifest or a checkout's config chose (SCHEMA.md, "Places")."""
    reason = project.find_place_distrust(location)
    if reason is not None:
        raise Refused(
            f"cannot write '{dataset.name}': {reason}",
            hint="dm trust shows it and asks; or set the place in your own config: dm config set --global",
            code="place-untrusted",
        )
