"""Switches as files: what a directory says, read only when something came or went."""

import os
import time

import pytest

from proxy.service.flag_files import FlagDirectory

LATER = 1e12  # long after whatever the files say


@pytest.fixture
def flags(tmp_path):
    return FlagDirectory(tmp_path)


def read(flags, now=LATER):
    files = flags.read_if_changed(now)
    return None if files is None else {file.class_name: file.order for file in files}


def test_a_file_is_a_switch_while_it_is_there(flags, tmp_path):
    assert read(flags) == {}
    (tmp_path / "pause-bulk").touch()
    (tmp_path / "drain-night-jobs").touch()
    assert read(flags) == {"bulk": "pause", "night-jobs": "drain"}
    (tmp_path / "pause-bulk").unlink()
    assert read(flags) == {"night-jobs": "drain"}


def test_what_has_not_changed_is_not_read_again(flags, tmp_path):
    (tmp_path / "pause-bulk").touch()
    read(flags)

    assert read(flags) is None


def test_what_changed_a_moment_ago_is_read_again(flags, tmp_path):
    """Two files within one tick of the file system's clock leave the same stamp on the directory."""
    (tmp_path / "pause-bulk").touch()
    stamp = os.stat(tmp_path).st_mtime_ns
    assert read(flags, now=time.time()) == {"bulk": "pause"}
    (tmp_path / "pause-cron").touch()
    os.utime(tmp_path, ns=(stamp, stamp))

    assert read(flags, now=time.time()) == {"bulk": "pause", "cron": "pause"}


def test_of_several_files_of_a_class_the_one_counts_that_stops_it_most(flags, tmp_path):
    for order in ("pause", "reject", "drain"):
        (tmp_path / f"{order}-bulk").touch()

    assert read(flags) == {"bulk": "reject"}


@pytest.mark.parametrize("name", ["README", "pause-", "-bulk", "resume-bulk", "stop-bulk", ".pause-bulk", "pause"])
def test_other_files_say_nothing(flags, tmp_path, name):
    (tmp_path / name).touch()

    assert read(flags) == {}


def test_the_first_line_is_the_reason_and_the_owner_gave_the_order(flags, tmp_path):
    (tmp_path / "pause-bulk").write_text("import storm\x1b[2J\nand more\n")

    (file,) = flags.read_if_changed(LATER)

    assert file.reason == "import storm [2J"
    assert file.by


def test_a_pipe_of_that_name_is_not_waited_for(flags, tmp_path):
    os.mkfifo(tmp_path / "pause-bulk")

    assert read(flags) == {"bulk": "pause"}


@pytest.mark.parametrize("target", ["nowhere", "pause-bulk"])
def test_a_link_that_leads_nowhere_is_a_switch_and_hides_no_other(flags, tmp_path, target):
    """One link to itself made the whole directory unreadable: nobody could pause or resume by a file any more."""
    (tmp_path / "pause-bulk").symlink_to(target)
    (tmp_path / "drain-cron").touch()

    assert read(flags) == {"bulk": "pause", "cron": "drain"}
    assert flags.problem is None


def test_a_link_of_its_owner_to_his_own_file_brings_its_reason(flags, tmp_path):
    """As a ConfigMap lies in its directory: links to links."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "pause-bulk").write_text("import storm\n")
    (tmp_path / "pause-bulk").symlink_to(tmp_path / "..data" / "pause-bulk")

    (file,) = flags.read_if_changed(LATER)

    assert file.reason == "import storm"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of somebody else")
def test_a_link_of_somebody_else_to_a_file_of_the_proxy_shows_nothing_of_it(flags, tmp_path):
    """Who may write into the directory may not read the users file, and /status shows the reason to everybody."""
    (tmp_path / "users.txt").write_text('"web" "hush"\n')
    (tmp_path / "pause-bulk").symlink_to(tmp_path / "users.txt")
    os.chown(tmp_path / "pause-bulk", 65534, 65534, follow_symlinks=False)

    (file,) = flags.read_if_changed(LATER)

    assert (file.class_name, file.reason) == ("bulk", "")


def test_a_directory_that_is_removed_holds_no_files_and_its_return_is_seen(tmp_path):
    directory = tmp_path / "flags"
    directory.mkdir()
    (directory / "pause-bulk").touch()
    flags = FlagDirectory(directory)
    assert read(flags) == {"bulk": "pause"}
    (directory / "pause-bulk").unlink()
    directory.rmdir()

    assert read(flags) == {}
    assert "No such file" in flags.problem
    assert read(flags) is None
    directory.mkdir()
    assert read(flags) == {}
    assert flags.problem is None


def test_a_directory_that_cannot_be_read_leaves_things_as_they_are(flags, tmp_path, monkeypatch):
    (tmp_path / "pause-bulk").touch()
    read(flags)

    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("proxy.service.flag_files.os.stat", broken)

    assert read(flags) is None
    assert "Input/output error" in flags.problem
