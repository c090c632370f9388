import os
import stat

import pytest

from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_path, atomic_write, make_folder


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


def test_a_folder_is_made_once_or_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    make_folder(folder, "the folder")
    make_folder(folder, "the folder")
    assert folder.is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SparsemendError, match=r"^the folder cannot be made \(.*\): got .*file"):
        make_folder(tmp_path / "file" / "b", "the folder")
