"""Files that are whole or absent, whatever interrupts their writing."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galdiff.atomic import (
    append_line,
    atomic_write,
    read_json_lines,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
)
from galdiff.errors import ResourceError

CRASH = """
import os, signal, sys
from galdiff.atomic import atomic_write
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[1], die)
with atomic_write(sys.argv[2]) as file:
    file.write(b"new" * 100_000)
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_before_the_rename_leaves_the_old_file_whole(tmp_path, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", CRASH, call, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_text(path, "newer")  # and the abandoned temporary file is in nobody's way
    assert path.read_text() == "newer"


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_synced_then_renamed_then_the_folder_synced(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def kind(handle):
        return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(f"sync {kind(handle)}"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_text(tmp_path / "file", "text")
    assert calls == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("write", [lambda p: write_text(p, "new"), lambda p: append_line(p, "new")])
def test_the_systems_refusals_become_resource_errors(tmp_path, monkeypatch, code, write):
    path = tmp_path / "file"
    path.write_text("old\n")

    def refuse(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResourceError) as caught:
        write(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text().startswith("old\n")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"[Nn]ot a directory"):
        write_text(tmp_path / "file" / "inside", "text")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(ResourceError, match=r"[Ii]s a directory"):
        write_text(tmp_path / "folder", "text")


def test_other_system_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "no" / "file", "text")


FULL = """
import resource, signal, sys
from galdiff.atomic import atomic_write
from galdiff.errors import ResourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_write(sys.argv[1]) as file:
        file.write(bytes(100_000))
except ResourceError as error:
    sys.exit(f"named: {error}")
"""


def test_a_real_limit_on_file_size_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"named: {path}: the disk is full" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_and_refusal_of_nan(tmp_path):
    path = tmp_path / "value.json"
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(path, value)
    assert json.loads(path.read_text()) == value
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == value


def test_lines_are_appended(tmp_path):
    path = tmp_path / "journal"
    for line in ("one", "zwölf"):
        append_line(path, line)
    assert path.read_text().splitlines() == ["one", "zwölf"]


def test_a_line_after_one_that_was_cut_off_stands_alone(tmp_path):
    path = tmp_path / "journal"
    path.write_text("one\ntw")
    append_line(path, "three")
    assert path.read_text() == "one\ntw\nthree\n"


def test_hash_of_a_file_is_that_of_sha256sum(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=5))
def test_hash_of_json_depends_on_the_value_and_not_on_its_order(value):
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)
    assert sha256_json(json.loads(json.dumps(value))) == sha256_json(value)
    assert sha256_json({**value, "another key than any there is, surely": 1}) != sha256_json(value)


def test_a_journal_is_read_but_for_a_line_that_a_crash_cut(tmp_path):
    path = tmp_path / "x.jsonl"
    assert read_json_lines(path) == []
    append_line(path, '{"row": 1}')
    with open(path, "a") as file:
        file.write('{"row": 2, "wh')
    append_line(path, '{"row": 2}')
    assert read_json_lines(path) == [{"row": 1}, {"row": 2}]


def test_damaged_lines_of_a_journal_are_read_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"row": 1}\n{"r\xffw": 2}\n7\n\0\0\0\0\n{"row": 3}\n{"ro')
    assert read_json_lines(path) == [{"row": 1}, {"row": 3}]
