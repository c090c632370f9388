import pytest

from sparsemend.errors import SparsemendError
from sparsemend.files import check_folder, filled_folder, make_folder, written_files


def test_a_folder_is_made_once_or_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    make_folder(folder, "the folder")
    make_folder(folder, "the folder")
    assert folder.is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SparsemendError, match=r"^the folder cannot be made \(.*\): got .*file"):
        make_folder(tmp_path / "file" / "b", "the folder")


def test_a_folder_is_filled_at_the_end(tmp_path):
    folder = tmp_path / "a" / "b"
    for content in ("old", "new"):
        with written_files() as written, filled_folder(folder, "the folder") as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "file").write_text(content)
            if content == "old":
                assert not folder.exists()
            else:
                (folder / "other").write_text("mine")
        assert written == [folder]
        assert (folder / "inner" / "file").read_text() == content
    assert (folder / "other").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


def test_a_folder_is_as_it_was_after_an_error(tmp_path):
    folder = tmp_path / "b"

    def fail():
        with filled_folder(folder, "the folder") as temporary:
            (temporary / "file").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_filled_are_refused_before(tmp_path):
    check_folder(tmp_path, "the folder")
    check_folder(tmp_path / "new", "the folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SparsemendError, match=r"^the folder is a file: got .*file"):
        check_folder(tmp_path / "file", "the folder")
    for missing in (tmp_path / "no" / "b", tmp_path / "file" / "b"):
        with pytest.raises(SparsemendError, match=r"^the folder cannot be written \("):
            check_folder(missing, "the folder")
