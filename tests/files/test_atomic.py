import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_path, atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_the_whole_file(tmp_path):
    path = tmp_path / "file.bin"
    atomic_write(path, lambda file: file.write(b"content"))
    assert path.read_bytes() == b"content"
    assert names(tmp_path) == ["file.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_replaces_what_is_there(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"a longer content than the new one")
    atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_everything_as_it_was(tmp_path, before, error):
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        atomic_write(path, write)
    assert caught.value is error
    assert names(tmp_path) == ([] if before is None else ["file.bin"])
    assert before is None or path.read_bytes() == before


def test_the_temporary_file_lies_beside(tmp_path):
    path = tmp_path / "file.bin"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert not path.exists()
        temporary.write_bytes(b"content")
    assert not temporary.exists()
    assert path.read_bytes() == b"content"


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "file.bin"
    with pytest.raises(SparsemendError) as caught:
        atomic_write(path, lambda file: file.write(b""))
    assert str(caught.value) == (
        f"cannot write there (No such file or directory): got '{path}'; choose an existing folder"
    )
    assert names(tmp_path) == []


def test_a_file_for_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SparsemendError, match=r"^cannot write there \(Not a directory\)"):
        atomic_write(tmp_path / "file" / "x.bin", lambda file: file.write(b""))


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SparsemendError, match=r"^cannot write there \(Is a directory\)"):
        atomic_write(tmp_path / "folder", lambda file: file.write(b""))
    assert names(tmp_path) == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SparsemendError, match=r"^cannot write there \(Permission denied\)"):
        atomic_write(tmp_path / "x.bin", lambda file: file.write(b""))


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@given(umask=st.integers(0, 0o077))
def test_a_new_file_has_the_permissions_of_any_new_file(umask, tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    before = os.umask(umask)
    try:
        atomic_write(folder / "ours", lambda file: file.write(b"x"))
        (folder / "plain").touch()
    finally:
        os.umask(before)
    assert mode(folder / "ours") == mode(folder / "plain") == 0o666 & ~umask


@given(kept=st.integers(0o200, 0o777).map(lambda bits: bits | 0o600))
def test_a_file_that_was_there_keeps_its_permissions(kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "file"
    path.write_bytes(b"old")
    path.chmod(kept)
    atomic_write(path, lambda file: file.write(b"new"))
    assert (path.read_bytes(), mode(path)) == (b"new", kept)


def test_nobody_reads_along_while_a_private_file_is_written(tmp_path):
    path = tmp_path / "file"
    path.touch(0o600)
    with atomic_path(path) as temporary:
        assert mode(temporary) == 0o600


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, there, relative):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    if there:
        target.write_bytes(b"old")
        target.chmod(0o640)
    middle, link = tmp_path / "middle", tmp_path / "link"
    middle.symlink_to("far/target" if relative else target)
    link.symlink_to("middle" if relative else middle)
    with atomic_path(link) as temporary:
        assert temporary.parent == target.parent  # a rename does not cross file systems
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert middle.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "far") == ["target"]
    assert not there or mode(target) == 0o640


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(SparsemendError, match=r"cannot write there \(Too many levels"):
        atomic_write(tmp_path / "one", lambda file: file.write(b""))
    (tmp_path / "lost").symlink_to("nowhere/file")
    with pytest.raises(SparsemendError, match=r"cannot write there \(No such file"):
        atomic_write(tmp_path / "lost", lambda file: file.write(b""))
    (tmp_path / "folder").mkdir()
    (tmp_path / "inside").symlink_to("folder")
    with pytest.raises(SparsemendError, match=r"cannot write there \(Is a directory"):
        atomic_write(tmp_path / "inside", lambda file: file.write(b""))
    assert names(tmp_path) == ["folder", "inside", "lost", "one", "two"]


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


def make_link_to_device(path):
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_pipe, "a named pipe"),
        (make_socket, "a socket"),
        (make_link_to_device, "a device"),
    ],
)
def test_what_is_no_file_is_not_replaced(tmp_path, make, kind):
    path = tmp_path / "x.bin"
    make(path)
    before = stat.S_IFMT(path.stat().st_mode)
    with pytest.raises(SparsemendError) as caught:
        atomic_write(path, lambda file: file.write(b""))
    assert str(caught.value) == (
        f"cannot write there (it is {kind}): got '{path}'; choose the path of a file"
    )
    assert stat.S_IFMT(path.stat().st_mode) == before
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_named_and_leaves_everything_as_it_was(
    tmp_path, monkeypatch, call, before, code
):
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    target = {"chmod": "pathlib.Path.chmod", "replace": "pathlib.Path.replace"}
    if call == "chmod" and before is None:
        pytest.skip("a new file needs none")
    with monkeypatch.context() as patch:
        if call != "write":
            patch.setattr(target.get(call, f"os.{call}"), fail)
        with pytest.raises(SparsemendError) as caught:
            atomic_write(path, fail if call == "write" else lambda file: file.write(b"new"))
    assert str(caught.value).startswith(f"cannot write there ({os.strerror(code)}): got '{path}'")
    assert ("make room" in str(caught.value)) == (code != errno.EIO)
    assert names(tmp_path) == ([] if before is None else ["file.bin"])
    assert before is None or path.read_bytes() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from sparsemend.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "file.bin"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, "killed"], stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [done.stdout.strip()]
    atomic_write(tmp_path / "other.bin", lambda file: file.write(b"x"))
    assert names(tmp_path) == ["other.bin"]


def test_what_a_living_writer_has_is_left_alone(tmp_path):
    path = tmp_path / "file.bin"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path, "waits"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        name = writer.stdout.readline().strip()
        atomic_write(tmp_path / "other.bin", lambda file: file.write(b"x"))
        assert names(tmp_path) == [name, "other.bin"]
        with atomic_path(tmp_path / "outer") as outer:
            atomic_write(tmp_path / "inner", lambda file: file.write(b"x"))
            assert outer.exists()
        writer.stdin.close()
        writer.wait()
    assert names(tmp_path) == ["file.bin", "inner", "other.bin", "outer"]
    assert path.read_bytes() == b"half"


@pytest.mark.parametrize(
    "name",
    [
        ".sparsemend-000000000000-999999999-00000000.tmp",  # another machine
        ".sparsemend-999999999.tmp",
        ".file.bin.x7d_1",
        "sparsemend.tmp",
    ],
)
def test_other_files_are_left_alone(tmp_path, name):
    (tmp_path / name).touch()
    atomic_write(tmp_path / "file.bin", lambda file: file.write(b"x"))
    assert names(tmp_path) == sorted([name, "file.bin"])


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("x" * 255)
    atomic_write(path, lambda file: file.write(b"x"))
    assert path.read_bytes() == b"x"
    with pytest.raises(SparsemendError, match=r"cannot write there \(File name too long"):
        atomic_write(tmp_path / ("x" * 256), lambda file: file.write(b"x"))
