"""The command line does what its configuration and its flags say, and says what went wrong."""

import contextlib
import io
import json
import os
import re
import struct
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

import jaxqring
from jaxqring import claims, cli
from jaxqring.show import _tables as tables
from jaxqring.show import _training_figures as figures

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = """
name = "small"
model = "mlp"
nodes = 2
batch_per_node = 4
steps = 50
eval_every = 2
[data]
name = "mnist"
[[runs]]
name = "classical"
collective = "classical"
[[runs]]
name = "ring-noisy"
fidelity = 0.9
"""


def run(*arguments):
    """Exit status and everything printed, white space made single."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = cli.main(arguments)
        except SystemExit as end:
            status = end.code
    return status, " ".join(output.getvalue().split())


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """Wide enough that no message is broken in the middle of a path."""
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Exit status, output and folder of one small job with flags beside its file."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.toml").write_text(CONFIG)
    flags = "--data.name digits --runs.1.fidelity 0.95 --steps 3 --runs.1.bits=8 --tensorboard"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        config = str(folder / "small.toml")
        status, output = run("train", "--config", config, *flags.split(), "--out", str(folder))
    return status, output, folder / "small"


def test_a_flag_overrides_a_value_of_the_file(job):
    status, output, folder = job
    assert status == 0, output
    config = json.loads((folder / "summary.json").read_text())["config"]
    assert config["data"]["name"] == "digits"
    assert config["steps"] == 3
    assert [run["fidelity"] for run in config["runs"]] == [0.99, 0.95]
    assert [run["bits"] for run in config["runs"]] == [16, 8]
    # What no flag speaks of is as in the file.
    assert (config["name"], config["model"], config["nodes"]) == ("small", "mlp", 2)
    assert config["runs"][0]["collective"] == "classical"


def test_the_first_line_names_the_platform_the_devices_and_the_mapping(job):
    assert job[1].startswith("platform cpu, 2 devices, one for each node, mapping pmap classical")


FLAGS = [
    "--data.name",
    "digits",
    "--nodes",
    "2",
    "--batch-per-node",
    "4",
    "--model",
    "mlp",
    "--steps",
    "2",
]
CLASSICAL = ["--runs.0.collective", "classical"]


@pytest.mark.matrix
def test_vmap_puts_all_nodes_on_one_device(tmp_path):
    flags = [*FLAGS, *CLASSICAL, "--mapping", "vmap", "--out", str(tmp_path)]
    status, output = run("train", *flags)
    assert status == 0, output
    assert output.startswith("platform cpu, 1 device for all 2 nodes, mapping vmap ring-protected")
    summary = json.loads((tmp_path / "train" / "summary.json").read_text())
    assert summary["mapping"] == "vmap"
    # Started again it says that it is finished; told to, it starts over.
    before = (tmp_path / "train" / "summary.json").stat().st_mtime_ns
    status, again = run("train", *flags)
    assert status == 0
    assert again == f"{tmp_path / 'train'} holds this job, finished: --restart starts over"
    assert (tmp_path / "train" / "summary.json").stat().st_mtime_ns == before
    # A figure that is missing is drawn again, and no other.
    drift, network = tmp_path / "train" / "drift.png", tmp_path / "train" / "network.png"
    drift.unlink()
    drawn = network.stat().st_mtime_ns
    status, again = run("train", *flags)
    assert status == 0
    assert again.endswith(f"finished: --restart starts over wrote {drift} and drift.svg")
    assert drift.stat().st_size > 0
    assert network.stat().st_mtime_ns == drawn
    status, again = run("train", "--restart", *flags)
    assert status == 0
    assert again.startswith("platform cpu, 1 device")
    assert (tmp_path / "train" / "summary.json").stat().st_mtime_ns > before


def test_the_table_has_a_row_for_each_run(job):
    _, output, folder = job
    summary = json.loads((folder / "summary.json").read_text())
    assert f"small: {summary['parameters']:,} parameters, 2 nodes, 3 steps" in output
    for result in summary["runs"]:
        assert re.search(rf"{result['name']} +{result['test_accuracy']:.4f} ", output), output
    classical, noisy = summary["runs"]
    assert f"{classical['online_bits_per_link_step']:,} bits" in output
    assert classical["net_bits_per_online_qubit"] is noisy["net_bits_per_online_qubit"] is None
    row = f"{noisy['online_qubits_per_link_step']:,} qubits - {noisy['symbol_error_rate']:.1e} "
    row += f"{noisy['replica_agreement']:.4f}"
    assert row in output, output


def test_every_file_it_names_is_there(job):
    _, output, folder = job
    named = re.findall(r"wrote (\S+)", output)
    files = ("summary.json", "training.png", "network.png", "drift.png")
    assert named == [str(folder / f) for f in files]
    assert re.findall(r"and (\S+\.svg)", output) == ["training.svg", "network.svg", "drift.svg"]
    for path in named:
        assert os.path.getsize(path) > 0


def test_the_metrics_of_each_run_are_there_for_tensorboard(job):
    runs = sorted(path.parent.name for path in (job[2] / "tensorboard").glob("*/events*"))
    assert runs == ["classical", "ring-noisy"]


@pytest.mark.parametrize("name", ["training.png", "network.png", "drift.png"])
def test_the_figures_are_whole_pictures(job, name):
    path = job[2] / name
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 600
    assert height > 300
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (height, width)
    halves = picture[:, : width // 2], picture[:, width // 2 :]
    for half in halves:  # something is drawn on either side
        assert (half[..., :3].min(-1) < 0.9).mean() > 0.01


def result(name, **other):
    return {
        "name": name,
        "test_accuracy": 0.9,
        "online_bits_per_link_step": 1_161_776,
        "online_qubits_per_link_step": 290_456,
        "epr_pairs_per_link_step": 290_456,
        "net_bits_per_online_qubit": None,
        "symbol_errors": 6_971_234,
        "symbol_error_rate": 0.01,
        "replica_agreement": 0.75,
        **other,
    }


def table(width, *names):
    summary = {
        "name": "demo",
        "parameters": 20_746,
        "config": {"nodes": 8, "steps": 300},
        "runs": [result(name) for name in names],
    }
    output = io.StringIO()
    Console(width=width, file=output).print(tables.summary_table(summary))
    return output.getvalue()


def test_the_runs_of_the_demo_keep_their_names_in_a_terminal_of_80_columns():
    names = ("classical", "ring-ideal", "ring-noisy", "ring-protected")
    shown = table(80, *names)
    for name in names:
        assert name in shown, shown


def test_a_name_with_brackets_is_no_markup():
    shown = table(200, "ring [bold]")
    assert "ring [bold]" in shown, shown


def test_figures_are_drawn_of_a_run_without_a_finite_loss(tmp_path):
    # And of more runs than there are colours, the last of them of one step.
    names = [f"run {i}" for i in range(7)]
    line = {"replica_agreement": 1.0, "test_accuracy": 1.0}
    drift = dict.fromkeys(names, 0.0) | {names[0]: None, names[1]: 0.1}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for name in names:
            for step in range(1, 2 if name == names[-1] else 13):
                loss = None if name == names[0] else 1 / step
                file.write(
                    json.dumps(
                        {
                            "run": name,
                            "step": step,
                            "loss": loss,
                            "replica_drift": drift[name],
                            **line,
                        }
                    )
                    + "\n"
                )
    runs = [result(names[0], online_qubits_per_link_step=0)] + [result(n) for n in names[1:]]
    paths = figures.draw_training(tmp_path, {"runs": runs})
    assert [path.name for path in paths] == ["training.png", "network.png", "drift.png"]
    for path in paths:
        assert matplotlib.image.imread(path).shape[1] > 600


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["none", "--help", "-h"])
def test_help_names_the_command_and_how_to_override(arguments):
    status, output = run(*arguments)
    assert status == 0
    assert "jaxqring train --config configs/demo.toml" in output
    assert "jaxqring train --config demo" in output
    assert "jaxqring --version" in output
    assert "--runs.2.fidelity 0.99" in output


def test_help_of_the_command_names_every_field(monkeypatch):
    status, output = run("train", "--help")
    assert status == 0
    for flag in ("--steps", "--nodes", "--data.name", "--runs.0.fidelity", "--mapping", "--config"):
        assert flag in output, output


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "reproduce"])
def test_the_flags_of_every_command_list_the_file_and_its_names(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # narrow enough that flags stand in a single column
    status, output = run(command, "--help")
    assert status == 0
    assert "--config FILE|NAME" in output
    names = "budget, compression, compression_noise, compression_rates, demo, drift, inversion"
    assert (
        f"{names}, outer, outer_quick, quantum, quantum_budget, robust, secure, sensitivity,"
        " sweep_bits, sweep_fidelity" in output
    )
    assert ("--restart" in output) == (command in ("train", "inversion"))


def test_claims_are_listed_and_put_to_the_test_by_their_names(tmp_path):
    status, output = run("reproduce", "--list")
    assert status == 0
    assert [name for name in claims.CLAIMS if f"{name} " not in output] == []
    status, output = run("reproduce", "--quick", "overhead-and-rate", "--out", str(tmp_path))
    assert status == 0
    assert "overhead-and-rate" in output
    assert "holds if" in output
    assert (tmp_path / "report.html").exists()
    status, output = run("reproduce", "--config", "demo")
    assert status == 2
    status, output = run("reproduce", "no-such-claim")
    assert status == 2
    assert "`claims` must be one of 'factor-of-two'" in output


def test_a_name_stands_for_a_file_that_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = run("train", "--config", "demo", "--help")
    assert status == 0
    for shown in ("(default: demo)", "(default: ring-ideal)", "--runs.3.fidelity"):
        assert shown in output


def test_the_version_is_that_of_the_package():
    assert run("--version") == (0, f"jaxqring {jaxqring.__version__}")
    # Where no program can read it off the package: the citation, and the last entry of the changes.
    root = Path(__file__).parents[1]
    assert f"\nversion: {jaxqring.__version__}\n" in (root / "CITATION.cff").read_text()
    (last, *_) = re.findall(r"^## \[([^]]+)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert last in (jaxqring.__version__, "Unreleased")


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train", "--steps", "0"], ["train", "--stepz", "3"]], ids=" ".join
)
def test_errors_go_to_the_standard_error_stream(arguments, capsys):
    with contextlib.suppress(SystemExit):  # of the parser
        assert cli.main(arguments) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors


def test_an_unknown_command_is_refused():
    status, output = run("trian", "--steps", "3")
    assert status == 2
    assert "unknown command 'trian': choose train" in output


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--stepz", "3"], ["--stepz"]),
        (["--steps", "0"], ["`steps` must be an integer of at least 1, but got 0."]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--mapping", "xmap"], ["--mapping", "xmap", "shard_map"]),
        (
            ["--config", "dmo"],
            ["`config` must be a readable file, or one of budget, compression", "dmo"],
        ),
        (
            ["--runs.0.fidelity", "1.2"],
            ["`runs.fidelity` must lie in [0.25, 1], but got 1.2."],
        ),
        (["--config", "missing.toml"], ["`config` must be a readable file", "missing.toml"]),
        (["--config=missing.toml"], ["`config` must be a readable file", "missing.toml"]),
        (["--config"], ["`config` must be a readable file"]),
        (["--data.name", "npz", "--data.path", "missing.npz"], ["`data.path`", "missing.npz"]),
        (["--nodes", "9", "--data.name", "digits"], ["`nodes` must be at most the 8 devices"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_malformed_flag_is_refused(tmp_path, flags, words):
    status, output = run("train", "--out", str(tmp_path), *flags)
    assert status == 2, output
    for word in words:
        assert word in output, output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["stepz = 3", "[data]\nfolder = '.'", "[[runs]]\nfidelty = 0.9"])
def test_an_unknown_key_of_the_file_is_refused_in_one_sentence(tmp_path, key):
    path = tmp_path / "[bold]" / "c.toml"
    path.parent.mkdir()
    path.write_text(key)
    status, output = run("train", "--config", str(path))
    assert status == 2
    name = re.search(r"(\w+) =", key).group(1)
    where = rf"`([a-z0-9]+\.)*{name}` in '.*'"
    sentence = rf"error: `config` must have no unknown keys, but got {where}\."
    assert re.fullmatch(sentence, output), output
    assert str(path) in output  # brackets of a path are no markup


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxqring.jobs._training_job.train", interrupted)
    status, output = run("train", "--out", str(tmp_path))
    assert status == 130
    assert "the same command goes on from the last checkpoint" in output
    _, output = run("train", "--out", str(tmp_path), "--restart")
    assert "the same command without --restart goes on" in output
