"""``dm config``: settings are read, set and unset in the file that was meant, comments and order kept."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.commands import Ask, assert_one_error, write_manifest
from tests.fixtures.homes import Home, RunDm


def test_settings_are_set_where_they_were_meant_and_the_ladder_decides(
    run_dm: RunDm, ask: Ask, project: Path, home: Home
) -> None:
    write_manifest(project)
    user = home.config / "datamanifest" / "config.toml"
    local = project / ".datamanifest" / "config.toml"
    for option, value in (("--global", "user"), ("--project", "manifest"), ("--local", "checkout")):
        assert 0 == run_dm("config", "set", option, "scope", value).returncode
        assert f"{value}\n" == run_dm("config", "get", "scope").stdout
    assert ('scope = "user"\n', 'scope = "checkout"\n') == (user.read_text(), local.read_text())
    assert '[_STORAGE]\nscope = "manifest"\n' in (project / "datamanifest.toml").read_text()
    assert "user\n" == run_dm("config", "get", "--global", "scope").stdout
    assert "env\n" == run_dm("config", "get", "scope", env={"DATAMANIFEST_SCOPE": "env"}).stdout
    assert str(local) in ask("config", "get", "scope").document["settings"][0]["origin"]
    assert 0 == run_dm("config", "unset", "scope").returncode
    assert "manifest\n" == run_dm("config", "get", "scope").stdout
    assert 0 == run_dm("config", "unset", "--project", "scope").returncode
    assert "user\n" == run_dm("config", "get", "scope").stdout
    assert 0 == run_dm("config", "unset", "--global", "scope").returncode
    assert "'scope' is not set" == assert_one_error(run_dm("config", "get", "scope"), 3)


def test_comments_and_order_stay(run_dm: RunDm, project: Path, home: Home) -> None:
    path = home.config / "datamanifest" / "config.toml"
    path.parent.mkdir()
    text = '# mine\nbig = "/big"   # the big disk\n\n[_HOST."node*"]\nbig = "/scratch"\n'
    path.write_text(text)
    assert 0 == run_dm("config", "set", "--global", "scope", "x").returncode
    assert text == path.read_text().replace('scope = "x"\n', "")
    assert 0 == run_dm("config", "unset", "--global", "scope").returncode
    assert text.split() == path.read_text().split()


def test_settings_for_some_hosts(run_dm: RunDm, project: Path, home: Home) -> None:
    write_manifest(project)
    assert 0 == run_dm("config", "set", "--global", "--host", "*", "big", "/here").returncode
    assert 0 == run_dm("config", "set", "--global", "--host", "no-such-host", "big", "/there").returncode
    assert "/here\n" == run_dm("config", "get", "big").stdout
    assert "/there\n" == run_dm("config", "get", "--global", "--host", "no-such-host", "big").stdout
    assert "--host goes with" in assert_one_error(run_dm("config", "get", "--host", "x", "big"), 2)


def test_what_a_cloned_project_may_not_decide_cannot_be_set_there(run_dm: RunDm, project: Path) -> None:
    path = write_manifest(project)
    before = path.read_bytes()
    for option in ("--project", "--local"):
        done = run_dm("config", "set", option, "link", "copy")
        assert "user's config" in assert_one_error(done, 2)
        assert "dm config set --global" in done.stderr
    assert before == path.read_bytes()
    assert ["datamanifest.toml"] == [each.name for each in project.iterdir()]


def test_a_misspelt_setting_is_named_with_its_neighbour(run_dm: RunDm, project: Path, home: Home) -> None:
    write_manifest(project)
    done = run_dm("config", "set", "--global", "lock_stale_ge", "5")
    assert "unknown field 'lock_stale_ge'" == assert_one_error(done, 2)
    assert "hint: the nearest is 'lock_stale_age'" in done.stderr
    assert "not 'soon'" in assert_one_error(run_dm("config", "set", "--global", "lock_stale_age", "soon"), 2)
    assert [] == list(home.config.iterdir())


def test_list_shows_each_setting_with_its_rung(run_dm: RunDm, ask: Ask, project: Path) -> None:
    path = write_manifest(project, '[_STORAGE]\nscope = "s"\ndatasets_pools = ["/a", "/b"]\n')
    lines = run_dm("config", "list").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert str(path) in rows["scope"] and "/a,/b" in rows["datasets_pools"]
    settings = {row["name"]: row for row in ask("config", "list", "--project").document["settings"]}
    assert {"scope": "s", "datasets_pools": ["/a", "/b"]} == {name: row["value"] for name, row in settings.items()}


def test_the_users_config_works_without_a_project(run_dm: RunDm, home: Home) -> None:
    assert 0 == run_dm("config", "set", "--global", "data", "/somewhere").returncode
    assert "/somewhere\n" == run_dm("config", "get", "data").stdout
    assert "no manifest" in assert_one_error(run_dm("config", "set", "--project", "data", "x"), 3)
