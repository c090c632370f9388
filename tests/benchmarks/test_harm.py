from benchmarks.study.harm import correlations, table


def test_correlations_are_of_ranks_over_the_layers():
    rows = [
        {"network": "n", "sparsity": 0.9, "repair": "none", "layer": str(i), "rr": -float(i)}
        | {"raw": float(i), "residual": (2.0, 0.0, 1.0)[i], "kl": 10.0**i, "disagreement": i / 10}
        for i in range(3)
    ]
    (found,) = correlations(rows)
    assert found["layers"] == 3
    assert (found["raw, kl"], found["rr, kl"], found["residual, kl"]) == ("1.00", "-1.00", "-0.50")
    assert found["raw, disagreement"] == "1.00"
    assert table([found])[2].startswith("| n | 0.9 | none | 3 | 1.00 | -0.50 | -1.00 |")
    apart = [*rows, *({**row, "sparsity": 0.8} for row in rows)]
    assert [row["sparsity"] for row in correlations(apart)] == [0.9, 0.8]
