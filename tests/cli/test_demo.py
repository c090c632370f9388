import functools
import shlex

from sparsemend import demo

SMALL = {"sparsities": (0.9,), "rules": ("erk",), "repairs": ("none", "variance")}


def test_text_ends_with_what_was_written_and_what_to_try(run, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "run", functools.partial(demo.run, **SMALL))
    result = run("demo", "--out", "here")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "top-1 % at 90 % sparsity" in result.stdout
    assert "sparse.packed: packed, " in result.stdout
    assert "x ours" in result.stdout
    assert "best at 90 % sparsity: rule erk, repair variance" in result.stdout
    names = [
        "diagnosis.json",
        "accuracies.csv",
        "sparse.safetensors",
        "sparse.packed",
        "report.html",
    ]
    assert sorted(file.name for file in (tmp_path / "here").iterdir()) == sorted(names)
    wrote, tips = result.stdout.split("wrote\n")[1].split("try next\n")
    assert [line.strip() for line in wrote.splitlines() if line] == [f"here/{x}" for x in names]
    for line in tips.splitlines():  # what it suggests works as printed
        program, *arguments = shlex.split(line)
        assert program == "sparsemend"
        assert run(*arguments).exit_code == 0


def test_json(run_json, monkeypatch):
    monkeypatch.setattr(demo, "run", functools.partial(demo.run, **SMALL))
    values = run_json("demo")
    assert values["top1_dense"] > 0.97
    assert [(x["sparsity"], x["rule"], x["repair"]) for x in values["cells"]] == [
        (0.9, "erk", "none"),
        (0.9, "erk", "variance"),
    ]
    assert values["files"][0] == "sparsemend-demo/diagnosis.json"
    assert values["report"] == "sparsemend-demo/report.html"


def test_the_report(run_json, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "run", functools.partial(demo.run, **SMALL))
    assert run_json("demo", "--no-report")["report"] is None
    assert not list(tmp_path.rglob("*.html"))
    assert run_json("demo", "--report", "mine.html")["report"] == "mine.html"
    assert [file.name for file in tmp_path.rglob("*.html")] == ["mine.html"]
    text = (tmp_path / "mine.html").read_text(encoding="utf-8")
    for part in ("rules-and-repairs", "repairability", "allocations", "before-and-after"):
        assert f'id="{part}' in text


def test_a_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "the demo's folder cannot be made" in refused("demo", "--out", "file")
    assert "the demo's folder cannot be made" in refused("demo", "--out", "file/below")
