import csv
import math

import pytest
from benchmarks.study.__main__ import make_page, write
from benchmarks.study.cells import pairs, read_study
from benchmarks.study.claims import findings
from benchmarks.study.effect import effect
from tests.sweeps.samples import make_cell, make_record, make_settings

import sparsemend as sm
from sparsemend.sweeps.store import open_store

SPARSITIES = (0.8, 0.85, 0.9, 0.94, 0.945, 0.95, 0.955, 0.98)
# Recoveries of 1 to 0: inside of the transition from 0.85 to 0.955.
ERK = dict(zip(SPARSITIES, (0.9, 0.7, 0.6, 0.5, 0.45, 0.4, 0.3, 0.05), strict=True))
LEADS = (0.0, 0.05, 0.06, 0.08, 0.07, 0.08, 0.07, -0.04)
RR = {s: top1 + lead for (s, top1), lead in zip(ERK.items(), LEADS, strict=True)}
TABLES = {
    "erk": ERK,
    "rr": RR,
    "lamp": {s: top1 - 0.001 * i for i, (s, top1) in enumerate(RR.items(), 4)},
    "erk[projection=lamp]": {s: top1 - 0.02 for s, top1 in ERK.items()},
}
NETWORK = "cifar100_resnet18"


def stored(path, tables, **settings):
    with open_store(path) as store:
        for rule, table in tables.items():
            for sparsity, top1 in table.items():
                cell = make_cell(network=NETWORK, rule=rule, sparsity=sparsity, repair="batchnorm")
                own = make_settings(
                    test_size=2000, diagnosis="d" if rule == "rr" else "", **settings
                )
                values = {"top1_repaired": top1, "top1_dense": 1.0, "chance": 0.0}
                store.add(make_record(cell, own, **values))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read_study([stored(tmp_path_factory.mktemp("stores") / "band_n.sqlite", TABLES)])


def test_pairs_differ_in_the_rule_alone(study, tmp_path):
    found = list(pairs(study.records, "rr", "erk"))
    assert [pair.sparsity for pair in found] == list(SPARSITIES)
    assert [pair.difference for pair in found] == pytest.approx([100 * lead for lead in LEADS])
    assert [pair.inside for pair in found] == [False, *[True] * 6, False]
    p, q = ERK[0.9], RR[0.9]
    independent = 100 * math.sqrt((p * (1 - p) + q * (1 - q)) / 2000)
    assert found[2].sampling_error == pytest.approx(independent)
    other = read_study([stored(tmp_path / "b.sqlite", {"erk": {0.8: 0.5}}, inputs="others")])
    rr = [record for record in study.records if record.cell.rule == "rr"]
    assert not list(pairs([*rr, *other.records], "rr", "erk"))


def test_an_effect_is_that_of_a_paired_t_test(study):
    from scipy import stats

    found = effect(list(pairs(study.records, "rr", "erk")))
    expected = stats.ttest_rel(
        [100 * RR[s] for s in SPARSITIES], [100 * ERK[s] for s in SPARSITIES]
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert effect([]) is None
    one = effect(list(pairs(study.records, "rr", "lamp"))[:1])
    assert (one.p, one.verdict) == (None, "not measured")
    equal = effect(list(pairs(study.records, "erk", "erk[projection=lamp]")))
    assert (equal.p, equal.verdict) == (None, "partly")
    chance = effect(list(pairs(study.records, "rr", "lamp"))[:2])
    assert (chance.p > 0.05, chance.verdict) == (True, "not here")


def test_claims_are_judged_by_the_differences(study):
    found = {finding.claim: finding.judgement for finding in findings(study)}
    assert {claim: judged.verdict for claim, judged in found.items()} == {
        "1 RR is not ahead everywhere": "holds",
        "2 RR leads ERK, near the transition most": "holds",
        "2 RR leads LAMP, near the transition most": "partly",  # 0.8 points, within the error
        "3 RR leads ERK from 94 to 95.5 %": "holds",
        "3 RR leads LAMP from 95 to 95.5 %": "partly",
        "4 ERK gains by LAMP's projections": "not here",
        "4 ERK gains by RR's projections": "not measured",
        "4 ERK gains by global's projections": "not measured",
        "5 RR leads the best rule without repair": "partly",
        "Beyond: branches leads the best such rule": "not measured",
    }
    behind = found["1 RR is not ahead everywhere"]
    assert behind.compared == "erk − rr at 0.98"
    assert behind.effect.mean == pytest.approx(4)
    near = found["2 RR leads ERK, near the transition most"]
    assert (len(near.effect.pairs), near.beside.mean) == (6, pytest.approx(-2))
    fine = found["3 RR leads ERK from 94 to 95.5 %"]
    assert [pair.sparsity for pair in fine.effect.pairs] == [0.94, 0.945, 0.95, 0.955]


def test_every_number_of_the_page_leads_to_a_cell(study, tmp_path):
    write(study, tmp_path)

    def rows(name):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    key = ("network", "mask", "repair", "sparsity", "seed", "rule")
    cells = {tuple(row[name] for name in key): row for row in rows("cells.csv")}
    assert len(cells) == len(study.records)
    assert {row["store"] for row in cells.values()} == {"band_n"}
    found = rows("pairs.csv")
    for claim in rows("claims.csv"):
        own = [
            float(row["difference in points"]) for row in found if row["claim"] == claim["claim"]
        ]
        assert len(own) == int(claim["pairs"] or 0) + int(claim["pairs outside"] or 0)
        assert claim["command"].endswith("run.sh DATA STORES band_n") or not own
    for row in found:
        for rule, top1 in (("rule", "top-1 of the rule"), ("other", "top-1 of the other")):
            cell = cells[*(row[name] for name in key[:-1]), row[rule]]
            assert float(cell["top1_repaired"]) == float(row[top1])
    names = ("claims", "lead", "recovery", "accuracy", "ablation")
    assert all((tmp_path / f"{name}.svg").stat().st_size for name in names)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "+7.5 ± 0.6 (4)" in page


def test_a_page_says_what_is_not_measured_yet(tmp_path):
    one = read_study([stored(tmp_path / "one.sqlite", {"erk": {0.9: 0.5}})])
    page, found = make_page(one)
    assert {finding.judgement.verdict for finding in found} == {"not measured"}
    assert all(sentence.endswith("not measured yet.") for sentence in page.summary[:10])


def test_stores_that_disagree_are_refused(tmp_path):
    one = stored(tmp_path / "one.sqlite", {"erk": {0.9: 0.5}})
    two = stored(tmp_path / "two.sqlite", {"erk": {0.9: 0.5}}, inputs="others")
    with pytest.raises(sm.SparsemendError, match="two stores"):
        read_study([one, two])
    assert len(read_study([one, one]).records) == 1
