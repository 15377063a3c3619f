"""Have code of the manifest make a dataset: an own fetcher, its ``shell`` command, a fetcher in another language.

Each runs only with the user's permission, asked for right before. It gets a path in a folder that is made for this run
alone and is to leave a file or a folder there; what it left is then held against the contract like a download. When the
run is interrupted, a program is killed with its children. An own fetcher runs in a thread that cannot be killed and is
left behind: what it still writes lands in a folder that nobody looks into any more.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import MachineFailed, Malformed, Refused, SourceFailed
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.records.bindings import find_fetcher, find_shell, list_foreign_fetchers
from dm.porcelain.checking import check_arrived, check_folder, list_algorithms, measure_file
from dm.porcelain.template import expand_template, list_variables
from dm.values import Binding, Permission, printable

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.transport.protocol import Fetched
    from dm.porcelain.job import Job
    from dm.porcelain.staging import Staged

#: How often a thread that waits for a fetcher looks whether the run is to stop, seconds.
_LOOK_EVERY_S = 0.1
#: Lines of what a program said last that are told when it fails, beside the one in the error.
_LINES_TOLD = 10


class Rung(NamedTuple):
    """One rung of the ladder that is code: what it is, in one line, and how it is run.

    ``run`` returns another path than the one that it was given where the result lies there, and is the dataset itself:
    an archive has been unpacked.
    """

    runs: str
    run: Callable[[Job, Path, Permission], Path | None]


def obtain_by_code(job: Job) -> Staged | None:
    """Run the code that is to bring a dataset, and check what it left; None when the manifest names none for it.

    Raises `SourceFailed` when the code is broken, fails or leaves nothing, `Refused` when it is not allowed to run or
    left what no dataset may hold, `Malformed` for a command that cannot be read, and what checking raises. Nothing of
    its folder stays after an error.
    """
    rung = _choose_rung(job)
    if rung is None:
        return None
    staging = job.staging
    # Who was killed may have left a program behind that still writes: what cannot be removed now is no obstacle.
    with suppress(MachineFailed):
        remove_tree(staging.own_folder)
    folder = staging.make_folder() / f"code-{os.urandom(8).hex()}"
    try:
        ensure_folder(folder)
        path = folder / name_download(job.dataset)
        permission = job.project.demand_trust(f"fetch '{job.dataset.name}'", rung.runs)
        result = rung.run(job, path, permission)
        fetched = _take_in(job, result or path)
        if result is not None and not fetched.digests:
            return check_folder(job.dataset, result, staging)
        return check_arrived(job.project, job.dataset, fetched, staging)
    except BaseException:
        with suppress(MachineFailed):
            staging.clear()
        raise


def describe_code(dataset: Dataset) -> str | None:
    """What of the manifest's code brings a dataset, in one line; None when a transport does."""
    fetcher, shell = find_fetcher(dataset), find_shell(dataset)
    if fetcher is not None:
        return f"fetcher: {fetcher.describe()}"
    if shell is not None:
        return f"shell: {printable(shell)}"
    if not dataset.uris:
        for language, binding in list_foreign_fetchers(dataset):
            return f"{printable(language)} fetcher: {binding.describe()}"
    return None


def name_download(dataset: Dataset) -> str:
    """The last part of the path that code is to write to: the key's own, without its version, so that a writer that
    goes by the suffix finds it at the end.
    """
    part = dataset.key.parts[-1]
    return part.partition("#")[0] or part


# the rungs --------------------------------------------------------------------------------------------------------


def _choose_rung(job: Job) -> Rung | None:
    dataset = job.dataset
    fetcher = find_fetcher(dataset)
    if fetcher is not None:
        return Rung(f"fetcher: {fetcher.describe()}", lambda job, path, word: _run_own(job, fetcher, path, word))
    shell = find_shell(dataset)
    if shell is not None:
        return Rung(f"shell: {printable(shell)}", lambda job, path, word: _run_shell(job, shell, path, word))
    return None if dataset.uris else _choose_foreign(job)


def _choose_foreign(job: Job) -> Rung | None:
    """The first fetcher of another language that can run here; None when there are none.

    Raises `SourceFailed` when there are some and none can run: there is nothing else to go to.
    """
    dataset = job.dataset
    fetchers = list_foreign_fetchers(dataset)
    if not fetchers:
        return None
    told = " and ".join(printable(language) for language, _ in fetchers)
    word = job.shared.delegate
    if not (dataset.delegate is not False if word is None else word):
        where = "the manifest says delegate = false" if word is None else "--no-delegate is given"
        raise SourceFailed(
            f"cannot fetch '{dataset.name}': its only source is a fetcher in {told}, and {where}",
            hint="dm fetch --delegate runs it, or add a 'uri', 'shell' or 'fetcher'",
            code="not-delegated",
        )
    from dm.plumbing.transport.peer_cli import find_peer
    from dm.plumbing.transport.runtimes import find_runtime

    variables = job.project.environment.variables
    for language, binding in fetchers:
        if find_runtime(language, variables) is not None:
            return _make_foreign_rung(language, binding)
        peer = find_peer(language, variables) if job.project.manifest.path is not None else None
        if peer is not None:
            return _make_peer_rung(language, binding, peer)
        job.project.progress.note(f"'{dataset.name}': no runtime for {printable(language)} here; passing over it")
    raise SourceFailed(
        f"cannot fetch '{dataset.name}': its only source is a fetcher in {told}, for which there is no runtime here",
        hint=f"install {told}, or add a 'uri', 'shell' or 'fetcher'",
        code="runtime-missing",
    )


def _make_peer_rung(language: str, binding: Binding, peer: Sequence[str]) -> Rung:
    def run(job: Job, path: Path, permission: Permission) -> Path:
        return _run_peer(job, peer, path, permission)

    program = printable(os.path.basename(peer[0]))
    return Rung(f"{printable(language)} fetcher: {binding.describe()}, by {program}", run)


def _make_foreign_rung(language: str, binding: Binding) -> Rung:
    def run(job: Job, path: Path, permission: Permission) -> None:
        _run_foreign(job, language, binding, path, permission)

    return Rung(f"{printable(language)} fetcher: {binding.describe()}", run)


def _run_own(job: Job, binding: Binding, path: Path, permission: Permission) -> None:
    from dm.plumbing.formats.bindings import call_binding, call_fetcher

    project, context = job.project, _make_context(job, path)
    variables = _list_variables(job, path)

    def call() -> object:
        return call_binding(
            binding,
            project_root=project.root,
            variables=variables,
            conventional=lambda function: call_fetcher(function, context),
            permission=permission,
        )

    try:
        with _Turn(job):
            _call_apart(call, job)
    except _Raised as raised:
        error = raised.error
        if isinstance(error, SourceFailed) and error.code == "binding-broken":
            named = error.message if binding.ref in error.message else f"its fetcher {binding.ref}: {error.message}"
            message = f"cannot fetch '{job.dataset.name}': {named}"
            raise SourceFailed(message, hint=error.hint, code=error.code) from (error.__cause__ or error)
        told = str(error).strip().partition("\n")[0]
        what = f"{type(error).__name__}: {told}" if told else type(error).__name__
        raise SourceFailed(
            f"cannot fetch '{job.dataset.name}': its fetcher {binding.describe()} raised {printable(what)}",
            hint="--debug shows where",
            code="fetcher-failed",
        ) from error


def _run_shell(job: Job, template: str, path: Path, permission: Permission) -> None:
    from dm.plumbing.transport.command import run_command

    del permission  # whoever has one may run this
    dataset, project = job.dataset, job.project
    try:
        words = expand_template(template, _list_variables(job, path), job.required)
    except Malformed as error:
        line = dataset.find_line("shell")
        message = f"dataset '{printable(dataset.name)}': {error.message}"
        raise Malformed(
            message, hint=error.hint, code=error.code, file=project.manifest.path, line=line
        ) from error.__cause__
    finished = run_command(
        words,
        folder=project.root,
        variables=_list_surroundings(job),
        should_stop=job.shared.should_stop,
        take_line=_make_listener(job),
    )
    if finished.status:
        _tell_last(job, finished.lines[:-1])
        how = f"status {finished.status}" if finished.status > 0 else f"signal {-finished.status}"
        said = f": {finished.told}" if finished.lines else ""
        raise SourceFailed(
            f"cannot fetch '{dataset.name}': its shell command '{printable(words[0])}' ended with {how}{said}",
            hint=f"it was run in '{project.root}'; -v shows all that it says",
            code="shell-failed",
        )


def _run_foreign(job: Job, language: str, binding: Binding, path: Path, permission: Permission) -> None:
    from dm.plumbing.formats.bindings import substitute
    from dm.plumbing.transport.runtimes import run_foreign

    project, variables = job.project, _list_variables(job, path)
    args, kwargs = substitute(list(binding.args), variables), substitute(dict(binding.kwargs), variables)
    assert isinstance(args, list) and isinstance(kwargs, dict)
    try:
        run_foreign(
            language,
            binding._replace(args=tuple(args), kwargs=kwargs),
            download_path=path,
            context=_make_context(job, path),
            project_root=project.root,
            variables=_list_surroundings(job),
            should_stop=job.shared.should_stop,
            take_line=_make_listener(job),
            permission=permission,
        )
    except SourceFailed as error:
        message = f"cannot fetch '{job.dataset.name}': {error.message}"
        raise type(error)(message, hint=error.hint, code=error.code) from error.__cause__


def _run_peer(job: Job, peer: Sequence[str], path: Path, permission: Permission) -> Path:
    from dm.plumbing.transport.peer_cli import fetch_by_peer

    dataset, manifest = job.dataset, job.project.manifest.path
    assert manifest is not None
    folder = path.with_name("peer")
    ensure_folder(folder)
    try:
        return fetch_by_peer(
            peer,
            dataset.name,
            key=dataset.landing,
            manifest=manifest,
            folder=folder,
            variables=_list_surroundings(job),
            should_stop=job.shared.should_stop,
            take_line=_make_listener(job),
            permission=permission,
        )
    except SourceFailed as error:
        message = f"cannot fetch '{dataset.name}': {error.message}"
        raise type(error)(message, hint=error.hint, code=error.code) from error.__cause__


def _list_variables(job: Job, path: Path) -> dict[str, str]:
    """The variables of explicit calls and of ``shell`` (SCHEMA.md, "Bindings")."""
    return {"download_path": os.fspath(path), **list_variables(job.dataset, job.project.root)}


def _list_surroundings(job: Job) -> dict[str, str]:
    """The environment of a program that code of the manifest starts: the user's own.

    Python is told to keep bytecode in the user's cache: a clone's own ``__pycache__`` may hold what no source there
    says, and what nobody saw when the manifest was allowed.
    """
    environment = job.project.environment
    cache = environment.user_cache_dir / "datamanifest" / ".python"
    return {"PYTHONPYCACHEPREFIX": os.fspath(cache), **environment.variables}


def _make_context(job: Job, path: Path) -> dict[str, object]:
    """What a fetcher that is called conventionally may ask for by name (SCHEMA.md, "Bindings")."""
    return {
        **_list_variables(job, path),
        "uris": list(job.dataset.uris),
        "entry": dict(job.dataset.table),
        "requires_paths": [os.fspath(each.path) for each in job.required if each.path is not None],
    }


# running ----------------------------------------------------------------------------------------------------------


class _Raised(Exception):
    """What a fetcher raised, on its way from its thread."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Turn:
    """A `with` block that only one own fetcher of a run is in at a time; waiting for it ends when the run stops."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        shared = self._job.shared
        while not shared.turn.acquire(timeout=_LOOK_EVERY_S):
            _refuse_stopped(self._job)

    def __exit__(self, *_: object) -> None:
        self._job.shared.turn.release()


def _call_apart(call: Callable[[], object], job: Job) -> None:
    """Make a call in a thread of its own, which does not keep the process alive; raises `_Raised` for its error.

    When the run stops it is left to itself.
    """
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - also SystemExit: handed to the thread that waits
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="dm-fetcher", daemon=True).start()
    while not done.wait(_LOOK_EVERY_S):
        _refuse_stopped(job)
    if errors:
        raise _Raised(errors[0])


def _refuse_stopped(job: Job) -> None:
    if job.shared.should_stop():
        raise SourceFailed(f"the fetcher of '{job.dataset.name}' was stopped", code="stopped")


def _make_listener(job: Job) -> Callable[[str], None]:
    """What takes the lines of a program: the progress bar the last one, with ``-v`` each is told."""
    if not job.shared.tell_lines:
        return lambda line: job.task.describe(printable(line.strip()))
    return lambda line: job.project.progress.note(f"{job.dataset.name}: {printable(line)}")


def _tell_last(job: Job, lines: Sequence[str]) -> None:
    if not job.shared.tell_lines:  # else they were told already
        for line in lines[-_LINES_TOLD:]:
            job.project.progress.note(f"{job.dataset.name}: {printable(line)}")


# what was left ----------------------------------------------------------------------------------------------------


def _take_in(job: Job, path: Path) -> Fetched:
    """What code left at its path, measured if it is a file, as a transport would have brought it.

    Files that have another name elsewhere are copied first: they are somebody else's and must stay as they are.
    Raises `SourceFailed` when nothing is there, `Refused` for a link, a device and their like.
    """
    from dm.plumbing.transport.protocol import Fetched

    name = job.dataset.name
    with machine_errors("look at", path):
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            raise _refuse_nothing(job, path) from None
        except NotADirectoryError:
            raise _refuse_nothing(job, path) from None
    if stat.S_ISREG(about.st_mode):
        _own_file(path, about)
        return measure_file(path, list_algorithms(job.dataset), job.task)
    if stat.S_ISDIR(about.st_mode):
        _own_folder(path)
        return Fetched(path, {}, 0)
    what = "a symbolic link" if stat.S_ISLNK(about.st_mode) else "neither a file nor a folder"
    raise Refused(
        f"cannot take in what the code of '{name}' left at its path: it is {what}",
        hint="leave a file or a folder there, with the bytes themselves",
        code="special-file",
    )


def _refuse_nothing(job: Job, path: Path) -> SourceFailed:
    beside = sorted(display_path(other.name) for other in path.parent.iterdir()) if path.parent.is_dir() else []
    told = f"; beside it lies '{beside[0]}'" if beside else ""
    return SourceFailed(
        f"cannot fetch '{job.dataset.name}': its code ended well and left nothing at its path{told}",
        hint=f"it is to write to $download_path, whose last part is '{path.name}'",
        code="left-nothing",
    )


def _own_folder(path: Path) -> None:
    from dm.plumbing.fs.walk import scan_tree

    top = os.fsencode(path)
    for each in scan_tree(path):
        if each.kind == "file" and (each.nlink > 1 or each.mode & 0o7000):
            file = Path(os.fsdecode(top + b"/" + each.name))
            _own_file(file, os.lstat(file))


def _own_file(path: Path, about: os.stat_result) -> None:
    """Make a file that code left one of our own: no other name, no set-uid bit."""
    if about.st_nlink > 1:
        from dm.plumbing.fs.link import link_file

        private = path.with_name(f"{path.name[:200]}.dm-own")
        remove_tree(private)
        link_file(path, private, modes=("reflink", "copy"), executable=bool(about.st_mode & stat.S_IXUSR))
        with machine_errors("write", path):
            os.replace(private, path)
    elif about.st_mode & 0o7000:
        with machine_errors("write", path):
            os.chmod(path, about.st_mode & 0o777)
