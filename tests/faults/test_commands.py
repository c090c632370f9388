"""What commands say to bad input, and that they write nothing: one table.

What typer itself refuses, such as unknown options, is the subject of ``tests/cli``.
"""

from __future__ import annotations

import re
import shlex

import pytest
from tests.faults.conftest import nothing_changes
from tests.faults.hostile import write_hostile_files
from typer.testing import CliRunner

from sparsemend.cli import app

HUGE = 2**63
SIZES = "--calibration-size 16 --heldout-size 8 --batch-size 16"
# What stands for the beginning of a command that is right so far.
RIGHT = {
    "evaluate": "--model net.py:make --data data.npz --limit 8",
    "diagnose": "--model net.py:make --data data.npz --calibration-size 16",
    "allocate": "--model net.py:make --sparsity 0.5",
    "compress": f"--model net.py:make --data data.npz --sparsity 0.5 --limit 8 {SIZES}",
    "export": "--model net.py:make --data data.npz --out x.packed",
    "bench": "--model net.py:make --data data.npz --engine pytorch --seconds 0.01",
    "sweep": f"--model net.py:make --data data.npz --sparsity 0.5 --limit 8 {SIZES}"
    " --rule erk --repair none",
    "ablate": f"--model net.py:make --data data.npz --sparsity 0.5 --limit 8 {SIZES}"
    " --repair none --force first --from lamp",
    "report": "",
    "demo": "",
}

# Command, and what the error says.
TABLE = {
    # Weights.
    "evaluate --weights nowhere.pt": "weights file 'nowhere.pt' does not exist",
    "evaluate --weights photos": "weights file 'photos' is no file",
    "evaluate --weights pipe.safetensors": "is no file",
    "evaluate --weights /dev/zero": "is no file",
    "evaluate --weights cut.safetensors": "not a complete safetensors file",
    "evaluate --weights long.safetensors": "not a complete safetensors file",
    "evaluate --weights extra.safetensors": r"unexpected keys: a\\x1b\[2J",
    "evaluate --weights less.safetensors": r"missing keys: 6\.bias",
    "evaluate --weights integers.safetensors": "other types: 0.weight has torch.int64",
    "evaluate --weights many_biases.safetensors": "a bias cannot be added to module: got 'x'",
    "evaluate --weights deep_biases.safetensors": "'added_biases' .* does not fit",
    "evaluate --weights three_biases.safetensors": "'added_biases' .* does not fit: got '3'",
    "evaluate --weights nan.safetensors": r"outputs of layer '3' \(Conv2d\) are not finite: \d+ of",
    "compress --rule erk --weights nan.safetensors": r"outputs of layer '3' \(Conv2d\) are not fin",
    "sweep --weights nan.safetensors": "layer '3' has NaN or infinite biases: 6 of 6",
    "export --weights nan.safetensors": "layer '3' has NaN or infinite biases: 6 of 6",
    "bench --weights nan.safetensors": r"outputs of layer '3' \(Conv2d\) are not finite",
    "evaluate --weights bomb.pt": "it holds a .*open, which is code",
    "evaluate --weights bomb.pkl": "cannot be read as tensors alone",
    "evaluate --weights pickled.pt": "it holds a torch.nn.modules.*, which is code",
    "evaluate --weights list.pt": "holds no state dict: got 'list'",
    "evaluate --weights junk.pt": "cannot be read as tensors alone",
    # Networks.
    "evaluate --model ''": "--model is empty",
    "evaluate --model nope": "unknown model: got 'nope'",
    "evaluate --model :": "model is written wrong: got ':'",
    "evaluate --model nowhere.py:make": "there is no file 'nowhere.py'",
    "evaluate --model net.py:nope": "has no attribute 'nope'",
    "evaluate --model crash.py:x": r"KeyError: 'k' \(crash.py:1, in <module>\)",
    "evaluate --model syntax.py:x": "SyntaxError",
    "evaluate --model net.py:none": "returned no module: got 'NoneType'",
    "evaluate --model net.py:raising": r"KeyError: 'k' \(net.py:\d+, in raising\)",
    "evaluate --model net.py:leaving": "SystemExit: 7",
    "evaluate --model net.py:picky": "missing 2 required positional arguments.*--model-arg key=val",
    "evaluate --model-arg =1": "--model-arg is written wrong: got '=1'",
    "evaluate --model-arg depth=3": "takes no depth: got 3",
    "evaluate --model net.py:failing": r"KeyError: 8 \(networks.py:\d+, in lookup\)",
    "compress --rule erk --model net.py:failing": r"KeyError: \d+ \(networks.py:\d+, in lookup\)",
    "sweep --model net.py:failing": r"KeyError: \d+ \(networks.py:\d+, in lookup\)",
    "bench --model net.py:failing": r"KeyError: 1 \(networks.py:\d+, in lookup\)",
    "evaluate --model net.py:exiting": r"SystemExit: 7 \(net.py:\d+, in <lambda>\)",
    "compress --rule erk --model net.py:exiting": r"SystemExit: 7 \(net.py:\d+, in <lambda>\)",
    "sweep --model net.py:exiting": r"SystemExit: 7 \(net.py:\d+, in <lambda>\)",
    "evaluate --model net.py:without_numbers": "the outputs of the network are not finite",
    "compress --rule erk --model net.py:overflowing": r"outputs of layer '6' \(Linear\) are not fi",
    "bench --model net.py:without_numbers": "the outputs of the network are not finite",
    "evaluate --model net.py:meta": r"has layers without values: got \['0.weight'",
    "export --model net.py:meta": r"has layers without values: got \['0.weight'",
    "export --model net.py:lazy": r"parameter '1\.weight' has no values",
    "diagnose --model net.py:lazy": "layer '1' is lazy",
    "export --model net.py:of_complex_numbers": "is not float32: got 'torch.complex64'",
    "diagnose --model net.py:broken": "layer '3' has NaN or infinite weights: 9 of 216",
    "allocate --model net.py:broken --rule lamp": "layer '3' has NaN or infinite weights",
    "allocate --model net.py:without_layers": "no prunable layer",
    "compress --rule erk --model net.py:without_layers": "no prunable layer",
    # Devices.
    "evaluate --device meta": "--device cannot be used: got 'meta'",
    "compress --rule erk --device abacus": "--device cannot be used: got 'abacus'",
    "sweep --device cuda:99": "--device cannot be used: got 'cuda:99'",
    "evaluate --device ''": "--device is empty; leave it out",
    # Data.
    "evaluate --data ''": "--data is empty",
    "evaluate --data nowhere": "data 'nowhere' does not exist",
    "evaluate --data pipe.npz": "data 'pipe.npz' is no data set",
    "evaluate --data /dev/null": "is no data set",
    "evaluate --data loop.html": "data 'loop.html' does not exist",
    "diagnose --data bomb.npz": "holds Python objects, not numbers",
    "diagnose --data lying.npz": r"does not hold an array of shape \(1000000000000, 800\)",
    "diagnose --data junk.npz": "cannot be read as arrays",
    "diagnose --data empty.npz": r"names no array of inputs: got \[\]",
    "diagnose --data none.npz": "has no training split",
    "diagnose --data few.npz": "larger than the training split of 'few.npz': got 16; all",
    "diagnose --data nan_images.npz": r"batches\[0\] holds NaN or infinite values",
    "diagnose --data complex.npz": "wrong type: got torch.complex64",
    "diagnose --data texts.npz": "cannot be read as arrays",
    "diagnose --data number.npz": r"wrong shape: got \(\)",
    "evaluate --data few_labels.npz": "labels",
    "evaluate --data large_labels.npz": "classes that the network does not score: got 109951162777",
    "evaluate --data images.npz": "has no test split",
    "diagnose --data photos": "cannot be read|larger than the training split",
    "diagnose --data empty.txt": "'empty.txt' has no texts",
    "diagnose --data bytes.txt": "cannot be read",
    "diagnose --data astray.txt": r"lists images that do not exist: got \['nowhere.png'\]",
    "diagnose --data head.csv": "which column of 'head.csv' holds the texts is not known",
    "diagnose --data junk.parquet": "parquet file 'junk.parquet' cannot be read",
    "diagnose --data net.py:no_batches": "gave no batches",
    "diagnose --data net.py:some_batches": r"OSError: the disk is gone \(net.py:\d+, in ",
    "evaluate --mean nan --std 1": r"mean does not fit: got \(nan,\)",
    "evaluate --mean 0 --std 0": r"std does not fit: got \(0.0,\)",
    "evaluate --mean a --std 1": "--mean is no list of numbers: got 'a'",
    "evaluate --resize 0": "resize does not fit",
    "evaluate --resize 1e3": "--resize is no size: got '1e3'",
    # Numbers.
    **{
        f"{command} {option} {number}": f"is (out of range|too small): got {number}"
        for command, option in (
            ("evaluate", "--limit"),
            ("evaluate", "--batch-size"),
            ("diagnose", "--calibration-size"),
            ("compress --rule erk", "--calibration-size"),
            ("bench", "--threads"),
            ("sweep", "--workers"),
            ("sweep", "--limit"),
        )
        for number in (0, -1, HUGE)
    },
    **{
        f"{command} --seed {number}": f"seed is out of range: got {number}"
        for command in ("diagnose", "compress --rule erk", "export", "bench", "sweep", "ablate")
        for number in (-1, HUGE)
    },
    **{
        f"{command} --sparsity {number}": "sparsity is (out of range|neither)"
        for command in ("allocate", "compress --rule erk", "sweep", "ablate")
        for number in ("1", "-0.1", "nan", "inf")
    },
    **{
        f"bench --seconds {number}": "seconds is out of range"
        for number in ("0", "-1", "nan", "inf", "1e400")
    },
    "compress --rule erk --calibration-size 40 --heldout-size 8": "would overlap",
    "sweep --sparsity 0.1:0.9:1e-12": "this range of sparsities cannot be",
    "compress --target-flops 0.1": "not said once: got 'sparsity and target_flops'; allowed: ",
    "compress --target-latency ''": "--target-latency is empty",
    "allocate --target-size 10KiB": "not said once: got 'sparsity and target_size'",
    "sweep --sparsity ''": "--sparsity is empty",
    # Names, and what does not go together.
    "allocate --rule nope": "unknown allocation rule: got 'nope'",
    "allocate --rule auto": "rule 'auto' is a search",
    "compress --crop 8": "--crop has no use for data 'data.npz'",
    "compress --resize 9": "--resize has no use for data 'data.npz'",
    "compress --column a": "data 'data.npz' has no columns to choose from",
    "allocate --rule erk --repair nope": "unknown repair",
    "allocate --rule erk --seed -1": "seed is out of range",
    "allocate --rule erk --calibration-size 0": "calibration_size is out of range",
    "allocate --rule rr": "needs a diagnosis",
    "allocate --rule erk --data nowhere": "data 'nowhere' does not exist",
    "compress --rule erk --output ''": "--output is empty",
    "compress --rule erk --output 7": "output",
    "compress --rule erk --judge nope": "unknown judge: got 'nope'",
    "compress --rule erk --repair variance+": "unknown repair",
    "compress --rule erk --repair batchnorm+variance": "batchnorm\\+variance",
    "compress --rule erk --scope nope": "unknown repair scope: got 'nope'",
    "compress --rule erk --mask gradual --repair none": "mask 'gradual' is chosen jointly",
    "compress --rule erk --budget 3": "does not search, so it has no budget",
    "compress --rule auto --budget soon": "budget is not understood: got 'soon'",
    "compress --rule auto --budget inf": "budget.*inf",
    "compress --rule erk --repair variance --distill 3": "does not train",
    "compress --rule erk --repair distill --distill nan": "the length of the distillation.*'nan'",
    "compress --rule erk --include nope": "no layer of the network is meant by this pattern",
    "compress --rule erk --exclude '*'": "no layer is left to prune",
    "diagnose --repair nope": "unknown repair",
    "diagnose --weighting nope": "unknown weighting",
    "bench --engine nope": "unknown engine: got 'nope'",
    "bench --clock nope": "unknown clock: got 'nope'",
    "export --format nope": "unknown format: got 'nope'",
    "export --dtype int4": "unknown type of values: got 'int4'",
    "sweep --workers 2 --ray local": "exclude each other",
    "ablate --from nope": "unknown allocation rule",
    "ablate --force nope": "no layer of the network is meant by this pattern: got 'nope'",
    # Results of other commands.
    "allocate --rule rr --diagnosis nowhere.json": "there is no diagnosis file: got 'nowhere.json'",
    "allocate --rule rr --diagnosis pipe.json": "the diagnosis is no file: got 'pipe.json'",
    "allocate --rule rr --diagnosis junk.json": "the diagnosis file cannot be read",
    "allocate --rule rr --diagnosis deep.json": "nested too deeply",
    "allocate --rule rr --diagnosis plan.json": "file 'plan.json': this is not a diagnosis",
    "allocate --rule rr --diagnosis negative_diagnosis.json": "'raw': got -1.0",
    "allocate --rule rr --diagnosis infinite_diagnosis.json": "'raw': got inf",
    "allocate --rule rr --diagnosis huge_diagnosis.json": "this is not a diagnosis",
    "allocate --rule rr --diagnosis nameless_diagnosis.json": "'repair': got 3",
    "allocate --rule rr --diagnosis other_diagnosis.json": "names layers that the model does not",
    "allocate --rule rr --diagnosis lying_diagnosis.npz": r"shape \(1000000000000, 800\)",
    "compress --rule nowhere.json": "there is no allocation file: got 'nowhere.json'",
    "compress --rule folder.json": "the allocation is no file: got 'folder.json'",
    "compress --rule pipe.json": "the allocation is no file: got 'pipe.json'",
    "compress --rule junk.json": "the allocation file cannot be read",
    "compress --rule list.json": "file 'list.json': this is no allocation",
    "compress --rule negative_allocation.json": "kept count of layer '0' is out of range: got -1",
    "compress --rule share_allocation.json": "kept count of layer '0' is not a count: got 0.5",
    "compress --rule infinite_allocation.json": "size of layer '0' is not a count: got inf",
    "compress --rule nameless_allocation.json": "'rule': got 3",
    "compress --rule other_allocation.json": "of another sparsity|lacks layers",
    "compress --rule allocation.json --sparsity 0.9": "the allocation is of another sparsity",
    "compress --plan nowhere.json": "there is no plan file: got 'nowhere.json'",
    "compress --plan pipe.json": "the plan is no file: got 'pipe.json'",
    "compress --plan number.json": "file 'number.json': there is no plan in it",
    "compress --plan no_plan.json": "there is no plan in it",
    "compress --plan empty_plan.json": "this is no plan",
    "compress --plan other_plan.json": "unknown effort: got 'great'",
    "compress --plan negative_plan.json": "inputs of the plan is out of range: got -3",
    "compress --plan nameless_plan.json": "mask of the plan is of the wrong kind: got 3",
    "compress --plan longer_plan.json": "this is no plan",
    "compress --plan plan.json --rule erk": "a plan says rule, mask, repair and budget itself",
    "compress --plan plan.json --sparsity 0.9": "of another sparsity",
    "report '' --out x.html": "unknown ending of a result: got '.'",
    "report nowhere.json": "there is no result file: got 'nowhere.json'",
    "report junk.txt": "unknown ending of a result",
    "report pipe.json --out x.html": "the result is no file: got 'pipe.json'",
    "report folder.npz --out x.html": "the diagnosis is no file",
    "report nothing.json": "the result file cannot be read",
    "report nan.json": "no result that a report can show",
    "report plan.json": "no result that a report can show",
    "report nan_compression.json": "kl: got nan",
    "report negative_compression.json": "kl: got -1.0; allowed: a finite number, 0 or more",
    "report sure_compression.json": "top1_dense: got 5.0",
    "report negative_diagnosis.json": "'raw': got -1.0",
    "report share_allocation.json": "is not a count: got 0.5",
    # Stores.
    **{
        f"{command}{name}.sqlite": text
        for command in ("report ", "sweep --store ")
        for name, text in {
            "junk": "file is not a database",
            "cut": "malformed",
            "later": "has another version: got 999",
            "foreign": "no store of a sweep",
            "tableless": "no such table",
            "narrow": "no such column: kl",
        }.items()
    },
    "report text.sqlite": "column sparsity holds 'x', no REAL",
    "report list.sqlite": "column densities holds no JSON",
    "report deep.sqlite": "nested too deeply",
    "report bytes.sqlite": "column rule holds b'.xff', no TEXT",
    "report folder.sqlite --out x.html": "there is no store of a sweep",
    "ablate --store junk.sqlite": "file is not a database",
    "sweep --store folder.sqlite": "the store cannot be there",
    "sweep --store pipe.sqlite": r"cannot write there \(it is a named pipe\)",
    "sweep --store /dev/null": r"cannot write there \(it is a device\)",
    "sweep --store nowhere/s.sqlite": "the store cannot be there",
    # Files to write.
    "diagnose --out d.txt": "--out has another ending: got 'd.txt'",
    "diagnose --out folder.json": r"cannot write there \(Is a directory\)",
    "diagnose --out nowhere/d.json": "the folder of --out does not exist",
    "diagnose --out /proc/d.json": "cannot write there",
    "compress --rule erk --out null.safetensors": r"cannot write there \(it is a device\)",
    "compress --rule erk --out pipe.safetensors": r"cannot write there \(it is a named pipe\)",
    "compress --rule erk --out c.pt": "--out has another ending: got 'c.pt'",
    "compress --rule erk --report loop.html": "cannot write there",
    "compress --rule erk --report astray.html": r"cannot write there \(No such file",
    "compress --rule erk --report r.html --no-report": "contradict each other",
    "export --out folder.html": "has another ending",
    "export --out /proc/x.packed": "cannot write there",
    "export --out weights.safetensors --format c": "the folder of the export is a file",
    "sweep --csv folder.csv": r"cannot write there \(Is a directory\)",
    "sweep --csv s.txt": "--csv has another ending",
    "ablate --csv nowhere/a.csv": "the folder of --csv does not exist",
    "report allocation.json --out pipe.html": r"cannot write there \(it is a named pipe\)",
    "report allocation.json --svg junk.json": "the folder for figures cannot be made",
    "report allocation.json --csv /proc/x": "the folder for figures cannot be made",
    "demo --out junk.json": "the demo's folder cannot be made",
    "demo --out /proc/x": "the demo's folder cannot be made",
    "demo --report r.txt": "--report has another ending",
}

NETWORK = (
    "model = 'net.py:make'\ndata = 'data.npz'\nsparsity = 0.5\n"
    "calibration-size = 16\nheldout-size = 8\n"
)
# Content of a file for --config, and what the error says.
CONFIGS = {
    "": "--model is missing",
    "rule = [": "no TOML",
    f"a = {'[' * 100_000}": "no TOML",
    "seed = 1\nseed = 2": "no TOML",
    "a.b.c = 1": "unknown key .*: got 'a'",
    "csv = 'x.csv'": "unknown key",
    "seed = 1979-05-27": "key 'seed' .* got datetime.date",
    "seed = true": "key 'seed' .* got True; allowed: a whole number",
    "limit = 1e3": "key 'limit' .* got '1e3'",
    "rule = ''": "key 'rule' .* got ''; allowed: a text",
    "rule = {a = 1}": "key 'rule' .* allowed: a text",
    "budget = true": "key 'budget' .* allowed: a number, or a text such as '10min'",
    "resize = true": "key 'resize' .* allowed: a number, or a text such as '224x320'",
    "column = [[1]]": "key 'column' .* allowed: a name or a number",
    "model-arg = 3": "key 'model-arg' .* a table, or a list of texts",
    "network = 3": "networks are written wrong",
    "network = [3]": "networks are written wrong",
    f"{NETWORK}seed = 9223372036854775808": "seed is out of range: got 9223372036854775808",
    f"{NETWORK}seed = []": "the sweep has no seeds",
    f"{NETWORK}workers = 0": "workers is out of range: got 0",
    f"{NETWORK}batch-size = 0": "--batch-size is too small: got 0",
    f"{NETWORK}device = 'meta'": "--device cannot be used: got 'meta'",
    f"{NETWORK}mean = []": "--mean is no list of numbers",
    f"{NETWORK}store = 'a\\u0000b'".replace("'a", '"a').replace("b'", 'b"'): "a null character",
    f"{NETWORK}model-arg = {{depth = 3}}": "takes no depth: got 3",
    NETWORK.replace("0.5", "nan"): "sparsity is neither a number nor a range: got 'nan'",
    "sparsity = 0.5\n[[network]]\nname = 3": "key 'name' .* allowed: a text",
}


@pytest.fixture(scope="module")
def folder(good, tmp_path_factory):
    """Where commands run; none may change anything there."""
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile_files(folder, good)
    for number, content in enumerate(CONFIGS):
        (folder / f"{number}.toml").write_text(content)
    return folder


@pytest.fixture
def said(folder, monkeypatch):
    """Run a command that must fail, and return its error."""
    monkeypatch.chdir(folder)

    def run(command: str) -> str:
        name, *rest = shlex.split(command)
        arguments = [name, *shlex.split(RIGHT[name]), *rest]
        if "--config" in rest:
            arguments = [name, *rest]
        with nothing_changes(folders=(folder,)):
            result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = (x for x in result.stderr.splitlines() if not x.startswith("warning: "))
        assert line.isprintable()
        assert len(line) < 2500
        for never in ("Traceback", "check what was passed to it", "weights_only=False", "pickle=T"):
            assert never not in line
        return line.removeprefix("error: ")

    return run


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize("command", TABLE)
def test_bad_input_is_one_clear_error(said, command):
    assert re.search(TABLE[command], said(command))


@pytest.mark.parametrize("content", CONFIGS)
def test_bad_configurations(said, content):
    number = list(CONFIGS).index(content)
    assert re.search(CONFIGS[content], said(f"sweep --config {number}.toml"))


def test_a_configuration_that_would_be_waited_for(said):
    assert said("sweep --config pipe.toml").startswith("the configuration is no file")


def test_every_command_is_in_the_table():
    names = {command.callback.__name__ for command in app.registered_commands}
    assert {command.split()[0] for command in TABLE} == names == set(RIGHT)
    assert len(TABLE) + len(CONFIGS) >= 200
