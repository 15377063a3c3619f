"""Running a program: what it says, how it ends, and that nothing of it stays when the run stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.errors import MachineFailed, SourceFailed
from dm.plumbing.transport.command import Finished, Stopped, run_command
from tests.fixtures.homes import CHECKOUT

_PATIENCE_S = 60.0


def run(folder: Path, *words: str, script: str | None = None, **options: object) -> Finished:
    """Run words, or a script of /bin/sh, with nothing but a PATH."""
    settings: dict[str, object] = {
        "folder": folder,
        "variables": {"PATH": os.environ["PATH"]},
        "should_stop": lambda: False,
        **options,
    }
    return run_command(words or ["/bin/sh", "-c", script or ""], **settings)  # type: ignore[arg-type]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_until(condition: Callable[[], bool]) -> None:
    """A test that waits for ever is ended here; how long it took is nobody's concern."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.01)


def is_running(process_id: int) -> bool:
    """Whether a process is there and no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


def read_ids(path: Path, count: int) -> list[int]:
    """The process ids that a script wrote, as soon as there are so many."""
    wait_until(lambda: path.exists() and len(path.read_text().split()) >= count)
    return [int(word) for word in path.read_text().split()]


# What it says, how it ends


def test_status_and_last_words_are_returned(tmp_path: Path) -> None:
    finished = run(tmp_path, script="echo out; echo err >&2; exit 3")
    assert Finished(3, ("out", "err")) == finished
    assert "err" == finished.told


def test_a_silent_end_is_told_by_its_status(tmp_path: Path) -> None:
    assert "it ended with status 7" == run(tmp_path, script="exit 7").told


def test_an_end_by_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    finished = run(tmp_path, script="kill -USR1 $$")
    assert (-signal.SIGUSR1, f"it was ended by signal {int(signal.SIGUSR1)}") == (finished.status, finished.told)


def test_words_arrive_as_they_are(tmp_path: Path) -> None:
    words = ["a b", "$HOME", "'\"", "*", "; exit 9", "", "\udcff"]
    code = "import os,sys; print(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    expected = repr(b"|".join(map(os.fsencode, words)))
    assert (expected,) == run(tmp_path, *python(code), *words).lines


def test_folder_and_variables_are_those_given_and_stdin_is_empty(tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "DM_TEST": "a b"}
    finished = run(tmp_path, script='pwd; echo "$DM_TEST"; echo "${HOME-none}"; cat; echo end', variables=variables)
    assert (str(tmp_path.resolve()), "a b", "none", "end") == finished.lines


def test_a_program_is_looked_for_on_the_path_that_was_given(tmp_path: Path) -> None:
    program = tmp_path / "dm-test-program"
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    assert ("mine",) == run(tmp_path, "dm-test-program", variables={"PATH": str(tmp_path)}).lines


def test_a_carriage_return_ends_a_line_and_blank_lines_are_dropped(tmp_path: Path) -> None:
    taken: list[str] = []
    finished = run(tmp_path, script=r"printf '\r 10%%\r 20%%\r\n\n  \nend'", take_line=taken.append)
    assert [" 10%", " 20%", "end"] == taken
    assert (" 10%", " 20%", "end") == finished.lines


def test_bytes_that_are_no_utf_8_are_shown_escaped(tmp_path: Path) -> None:
    assert ("a\\xff\\xfeb ä",) == run(tmp_path, script=r"printf 'a\377\376b \303\244\n'").lines


def test_control_characters_do_not_reach_a_message(tmp_path: Path) -> None:
    assert r"\x1b[31mred" == run(tmp_path, script=r"printf '\033[31mred\n'; exit 1").told


def test_of_much_output_every_line_is_taken_and_the_last_are_kept(tmp_path: Path) -> None:
    count = 0

    def take(line: str) -> None:
        nonlocal count
        count += 1

    code = "import sys\nfor n in range(200_000): sys.stdout.write(f'line {n} ' + 'x' * 50 + '\\n')"
    finished = run(tmp_path, *python(code), take_line=take)
    assert (0, 200_000, 20) == (finished.status, count, len(finished.lines))
    assert finished.lines[-1].startswith("line 199999 ")


def test_a_line_without_end_is_cut_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    code = "import sys\nfor _ in range(64): sys.stdout.write('y' * (1 << 20))\nsys.stdout.write('\\nlast\\n')"
    finished = run(tmp_path, *python(code))
    assert ("y" * 500, "last") == finished.lines


def test_a_program_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    code = "import os,time; os.write(1, b'said\\n'); os.close(1); os.close(2); time.sleep(0.3); os._exit(4)"
    assert Finished(4, ("said",)) == run(tmp_path, *python(code))


# What cannot be run


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        run(tmp_path, "dm-no-such-program", "secret")
    assert "cannot run 'dm-no-such-program': no such file or directory" == caught.value.message
    assert "install it, or put the folder that holds it on PATH" == caught.value.hint
    assert ("program-missing", 5) == (caught.value.code, caught.value.exit_status)


def test_a_file_that_may_not_be_run_is_named(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(SourceFailed, match="permission denied") as caught:
        run(tmp_path, str(plain))
    assert "program-missing" == caught.value.code


def test_a_nul_in_a_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="cannot run 'echo': embedded null byte"):
        run(tmp_path, "echo", "a\0b")


def test_a_missing_working_folder_is_not_blamed_on_the_program(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        run(tmp_path / "none", "echo")
    assert f"cannot work in '{tmp_path / 'none'}': no such file or folder" == caught.value.message


# Being stopped


def stop_when(path: Path, count: int) -> Callable[[], bool]:
    return lambda: path.exists() and len(path.read_text().split()) >= count


def test_stopping_ends_the_program(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    with pytest.raises(Stopped) as caught:
        run(tmp_path, script="echo $$ > ids; exec sleep 600", should_stop=stop_when(ids, 1))
    assert ("'/bin/sh' was stopped", "stopped") == (caught.value.message, caught.value.code)
    assert not is_running(read_ids(ids, 1)[0])


def test_stopping_ends_children_that_outlive_their_parent_and_ignore_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dm.plumbing.transport.command._GRACE_S", 0.3)
    ids = tmp_path / "ids"
    script = (
        "(trap '' TERM; sh -c 'echo $$ >> ids; while :; do sleep 0.1; done' & echo $! >> ids; wait) & "
        "echo $$ >> ids; wait"
    )
    with pytest.raises(Stopped):
        run(tmp_path, script=script, should_stop=stop_when(ids, 3))
    wait_until(lambda: not any(is_running(each) for each in read_ids(ids, 3)))


def test_a_program_may_tidy_up_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dm.plumbing.transport.command._GRACE_S", _PATIENCE_S)
    script = "trap 'sleep 0.2; echo tidy > done; exit' TERM; echo x > begun; while :; do sleep 0.05; done"
    with pytest.raises(Stopped):
        run(tmp_path, script=script, should_stop=(tmp_path / "begun").exists)
    assert "tidy\n" == (tmp_path / "done").read_text()


def test_stopping_without_a_group_of_its_own_ends_the_program_only(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    with pytest.raises(Stopped):
        run(tmp_path, script="echo $$ > ids; exec sleep 600", should_stop=stop_when(ids, 1), own_group=False)
    assert not is_running(read_ids(ids, 1)[0])


@pytest.mark.parametrize("own_group", [True, False])
def test_the_terminal_is_shared_only_without_a_group_of_its_own(tmp_path: Path, own_group: bool) -> None:
    code = "import os; print(os.getsid(0), os.getpgid(0))"
    finished = run(tmp_path, *python(code), own_group=own_group)
    mine = f"{os.getsid(0)} {os.getpgid(0)}"
    assert own_group == (mine != finished.lines[0])


def test_what_take_line_raises_ends_the_program_and_reaches_the_caller(tmp_path: Path) -> None:
    def take(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match=r"^\d+$") as caught:
        run(tmp_path, script="echo $$; exec sleep 600", take_line=take)
    assert not is_running(int(str(caught.value)))


def test_ctrl_c_in_the_caller_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom dm.plumbing.transport.command import run_command\n"
        "script = 'echo $$ >> ids; (echo $$; exec sleep 600) & echo $! >> ids; wait'\n"
        "run_command(['/bin/sh', '-c', script], folder=Path(sys.argv[1]), variables=os.environ,"
        " should_stop=lambda: False)"
    )
    caller = subprocess.Popen(
        [*python(code), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stderr=subprocess.PIPE
    )
    ids = read_ids(tmp_path / "ids", 2)
    caller.send_signal(signal.SIGINT)
    _, stderr = caller.communicate(timeout=_PATIENCE_S)
    assert stderr.rstrip().endswith(b"KeyboardInterrupt")
    assert [False, False] == [is_running(each) for each in ids]


def test_a_child_in_the_background_is_ended_with_the_program(tmp_path: Path) -> None:
    finished = run(tmp_path, script="sleep 600 & echo $!")
    assert (0, False) == (finished.status, is_running(int(finished.lines[0])))


def test_a_child_in_the_background_of_one_that_shares_the_terminal_is_left_alone(tmp_path: Path) -> None:
    finished = run(tmp_path, script="sleep 600 & echo $!", own_group=False)
    child = int(finished.lines[0])
    try:
        assert 0 == finished.status
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_in_the_background_that_goes_on_writing_does_not_keep_the_caller(tmp_path: Path) -> None:
    assert 5 == run(tmp_path, script="(while :; do echo more; done) & exit 5").status


def test_descriptors_are_not_left_open(tmp_path: Path) -> None:
    # In a process of its own: threads that other tests left behind open and close files as they like.
    code = """
import os, sys
from tests.unit.transport.test_command import run
from pathlib import Path
folder = Path(sys.argv[1])
run(folder, script="echo warm")
before = os.listdir("/dev/fd")
for _ in range(2):
    run(folder, script="sleep 0.5 & echo x")
assert before == os.listdir("/dev/fd"), (before, os.listdir("/dev/fd"))
"""
    done = subprocess.run([*python(code), str(tmp_path)], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert (0, "") == (done.returncode, done.stderr)


def test_a_descriptor_to_keep_open_is_inherited_and_no_other(tmp_path: Path) -> None:
    kept, other = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(other, True)
    try:
        code = (
            f"import os\nfor n in ({kept}, {other}):\n try: os.fstat(n); print('open')\n except OSError: print('shut')"
        )
        assert ("open", "shut") == run(tmp_path, *python(code), keep_open=[kept]).lines
    finally:
        os.close(kept)
        os.close(other)


def test_several_threads_run_programs_at_once(tmp_path: Path) -> None:
    found: dict[int, Finished] = {}

    def work(number: int) -> None:
        found[number] = run(tmp_path, script=f"echo {number}; exit {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: Finished(number, (str(number),)) for number in range(8)} == found
