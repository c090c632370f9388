import sys

import pytest

from sparsemend.progress import progress_bar, progress_shown


def run(description="work", total=3, show=None, steps=3):
    with progress_shown(show), progress_bar(description, total) as advance:
        for _ in range(steps):
            advance()


@pytest.fixture(autouse=True)
def able_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")


def be_a_terminal(monkeypatch):
    """To be called in the test itself, which has a stream of its own."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


@pytest.mark.parametrize("show", [None, False])
def test_silent_where_nobody_looks(capsys, show):
    run(show=show)
    assert capsys.readouterr() == ("", "")


def test_silent_on_request_even_on_a_terminal(capsys, monkeypatch):
    be_a_terminal(monkeypatch)
    run(show=False)
    assert capsys.readouterr() == ("", "")


def test_shown_on_standard_error(capsys):
    run(show=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "work" in err
    assert "3/3" in err


def test_shown_on_a_terminal(capsys, monkeypatch):
    be_a_terminal(monkeypatch)
    run()
    assert "work" in capsys.readouterr().err


@pytest.mark.parametrize("total", [None, 0, 2])
def test_any_number_of_steps_will_do(total):
    run(total=total, show=True, steps=5)


def test_inner_bars_join_the_outer_one(capsys):
    with progress_shown(True), progress_bar("outer", 2) as advance:
        for _ in range(2):
            run("inner", show=True)
            advance()
    run("later", show=True)
    err = capsys.readouterr().err
    assert all(word in err for word in ("outer", "2/2", "later"))


def test_a_new_bar_starts_after_an_error():
    for _ in range(2):
        bars = progress_bar("outer", 2), progress_bar("inner", 2)
        with pytest.raises(KeyError), progress_shown(True), bars[0], bars[1]:
            raise KeyError


def test_a_bar_may_be_renamed_and_set(capsys):
    with progress_shown(True), progress_bar("search", 8) as advance:
        advance("search, KL 0.25", done=2.5)
        advance(done=7)
        advance()
    err = capsys.readouterr().err
    assert "search, KL 0.25" in err
    assert "8/8" in err


def test_without_a_bar_nothing_is_renamed(capsys):
    with progress_shown(False), progress_bar("search", 8) as advance:
        advance("other", done=3)
    assert capsys.readouterr() == ("", "")


def test_what_is_said_within_goes_for_all_that_is_called(capsys):
    with progress_shown(True):
        with progress_shown(None):
            run()
        shown = capsys.readouterr().err
        with progress_shown(False):
            run()
        run("again")
    assert "3/3" in shown
    assert "again" in capsys.readouterr().err
    run("outside")
    assert capsys.readouterr() == ("", "")


def test_time_left_is_said_only_where_the_number_of_steps_is_known(capsys):
    run(total=None, show=True)
    assert "left" not in capsys.readouterr().err
    run(total=3, show=True)
    assert "left" in capsys.readouterr().err


def test_time_left_may_be_known_better_than_from_the_steps(capsys):
    with progress_shown(True), progress_bar("work", 4) as advance:
        advance(left=3600.0)
        advance(left=7200.0)
    err = capsys.readouterr().err
    assert "2/4" in err
    assert any(f"{time} left" in err for time in ("2:00:00", "1:59:59", "1:59:58"))
