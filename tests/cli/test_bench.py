DIGITS = ("bench", "--model", "digits", "--data", "digits", "--seconds", "0.05")
FEW = ("--engine", "pytorch", "--engine", "sparsemend")


def test_a_table_and_json(run, run_json):
    values = run_json(*DIGITS, *FEW, "--batch-size", 2)
    assert set(values["milliseconds"]) == {"pytorch", "sparsemend"}
    assert values["batch"] == "float32 [2, 1, 8, 8]"
    shown = run(*DIGITS, *FEW).stdout
    assert "x ours" in shown
    assert "float32 [1, 1, 8, 8], 1 thread" in shown


def test_an_unknown_engine(refused):
    assert "unknown engine: got 'tpu'" in refused(*DIGITS, "--engine", "tpu")
