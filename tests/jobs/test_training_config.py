"""A configuration is what its file says, or it is refused in one sentence."""

import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

from jaxqring import FixedPoint, Retransmit, depolarizing, reed_solomon, superdense, werner
from jaxqring._fields import as_written
from jaxqring.codes import IdealCode, Unequal, bch, repetition, secded
from jaxqring.jobs import (
    BudgetConfig,
    CompressionConfig,
    InversionConfig,
    OuterConfig,
    RobustConfig,
    SensitivityConfig,
    SweepConfig,
    TrainConfig,
    load_config,
)
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig
from jaxqring.jobs._load import packaged_configs
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.train import MembershipConfig
from jaxqring.train._datasets import DataConfig

DEMO = Path(__file__).parents[2] / "configs" / "demo.toml"

CHANGE = "[[runs]]\n[[runs.membership]]\nstep = {}\nnodes = [{}]\n"
# name: (TOML, words of the message)
REFUSED = {
    "unknown key": ("stepz = 3", ["stepz"]),
    "unknown key of the data": ("[data]\nfolder = '.'", ["folder"]),
    "unknown key of a run": ("[[runs]]\nfidelty = 0.9", ["fidelty"]),
    "broken TOML": ("steps =", ["TOML", "Invalid value"]),
    "no TOML": ("three steps", ["TOML", "line 1"]),
    "string for a number": ('nodes = "8"', ["nodes", "int", "8"]),
    "float for an integer": ("steps = 1.5", ["steps", "int", "1.5"]),
    "integer for a truth value": ("resume = 1", ["resume", "bool", "1"]),
    "string for a rate": ('learning_rate = "fast"', ["learning_rate", "float", "fast"]),
    "string for a table": ('data = "mnist"', ["data", "mnist"]),
    "string for a fidelity": ('[[runs]]\nfidelity = "high"', ["fidelity", "float", "high"]),
    "number for the runs": ("runs = 3", ["runs", "3"]),
    "string for the runs": ('runs = "noisy"', ["runs", "noisy"]),
    "table for the runs": ('[runs]\nname = "noisy"', ["runs"]),
    "number for a run": ("runs = [1]", ["runs", "1"]),
    "unknown mapping": ('mapping = "xmap"', ["mapping", "pmap", "shard_map", "vmap", "xmap"]),
    "unknown model": ('model = "rnn"', ["model", "cnn", "mlp", "rnn"]),
    "unknown data": ('[data]\nname = "cifar"', ["name", "mnist", "digits", "cifar"]),
    "unknown collective": ('[[runs]]\ncollective = "q"', ["collective", "classical", "ring", "q"]),
    "unknown wire": ('[[runs]]\nwire = "int8"', ["wire", "fixed", "bfloat16", "int8"]),
    "unknown noise": ('[[runs]]\nnoise = "on"', ["noise", "sampled", "gaussian", "on"]),
    "fidelity above one": ("[[runs]]\nfidelity = 1.2", ["fidelity", "[0.25, 1]", "1.2"]),
    "fidelity that is no number": ("[[runs]]\nfidelity = nan", ["fidelity", "[0.25, 1]", "nan"]),
    "negative error_prob": ("[[runs]]\nerror_prob = -0.1", ["error_prob", "[0, 1]", "-0.1"]),
    "readout error above one": (
        "[[runs]]\nreadout_error = 1.5",
        ["runs.readout_error", "[0, 1]", "1.5"],
    ),
    "unknown clip": (
        '[[runs]]\nclip = "median"',
        ["`runs.0.clip`", "'max' or 'robust' or a float", "median"],
    ),
    "negative clip": ("[[runs]]\nclip = -1.0", ["clip", "positive finite", "-1.0"]),
    "clip of floats": (
        '[[runs]]\nclip = 0.5\nwire = "float32"',
        ["runs.clip", "a ring with a fixed wire", "0.5"],
    ),
    "clip of a classical run": (
        '[[runs]]\nclip = "robust"\ncollective = "classical"',
        ["runs.clip", "a ring with a fixed wire", "robust"],
    ),
    "clip of codes": (
        '[[runs]]\nclip = "robust"\ncompress = { rank = 1 }',
        ["runs.clip", "compression", "robust"],
    ),
    "liars without a robust clip": ("[[runs]]\nliars = 1", ["liars", '"robust"', "1"]),
    "negative liars": (
        '[[runs]]\nclip = "robust"\nliars = -1',
        ["runs.liars", "at least 0", "-1"],
    ),
    "half of the nodes lie": (
        'nodes = 4\n[[runs]]\nclip = "robust"\nliars = 2',
        ["liars", "below half of the 4 nodes", "2"],
    ),
    "half of the nodes that stay lie": (
        CHANGE.format(9, "0, 1").replace("[[runs]]", '[[runs]]\nclip = "robust"\nliars = 1', 1),
        ["liars", "below half of the 2 nodes", "1"],
    ),
    "odd bits": ("[[runs]]\nbits = 7", ["bits", "even", "7"]),
    "bits of a double": ("[[runs]]\nbits = 64", ["bits", "[2, 32]", "64"]),
    "no room for guard bits": ("nodes = 8\n[[runs]]\nbits = 4", ["bits", "8 nodes", "guard", "4"]),
    "gaussian noise on a float wire": (
        '[[runs]]\nwire = "float32"\nnoise = "gaussian"',
        ["noise", "float or logarithmic wire", "gaussian"],
    ),
    "no steps": ("steps = 0", ["steps", "integer of at least 1", "0"]),
    "negative nodes": ("nodes = -1", ["nodes", "integer of at least 1", "-1"]),
    "no images": ("batch_per_node = 0", ["batch_per_node", "integer of at least 1", "0"]),
    "no looks at the test set": ("eval_every = 0", ["eval_every", "integer of at least 1", "0"]),
    "no learning": ("learning_rate = 0.0", ["learning_rate", "(0, inf)", "0.0"]),
    "infinite learning rate": ("learning_rate = inf", ["learning_rate", "(0, inf)", "inf"]),
    "negative seed": ("seed = -1", ["seed", "-1"]),
    "negative seed of the data": ("[data]\nseed = -1", ["seed", "-1"]),
    "no runs": ("runs = []", ["runs", "at least one", "[]"]),
    "two runs of one name": (
        '[[runs]]\nname = "a"\n[[runs]]\nname = "a"',
        ["runs", "name of its own", "['a', 'a']"],
    ),
    "run name with a slash": ('[[runs]]\nname = "a/b"', ["runs.name", "file", "a/b"]),
    "run name of a folder": ('[[runs]]\nname = ".."', ["runs.name", "file", "'..'"]),
    "empty run name": ('[[runs]]\nname = ""', ["runs.name", "file", "''"]),
    "npz without path": ('[data]\nname = "npz"', ["data.path", "npz", "None"]),
    "path without npz": ('[data]\npath = "x.npz"', ["data.path", "npz", "x.npz"]),
    "unknown family": (
        '[[runs]]\n[runs.protection]\nfamily = "ldpc"',
        ["family", "reed_solomon", "bch", "ldpc"],
    ),
    "unknown key of a code": ("[[runs]]\n[runs.protection]\nm = 3", ["unknown keys", "m"]),
    "string for a code": ('[[runs]]\nprotection = "bch"', ["protection", "bch"]),
    "no room for payload": ("[[runs]]\n[runs.protection]\nn = 223", ["`n`", "above k", "223"]),
    "more payload than code": ("[[runs]]\n[runs.protection]\nk = 256", ["255", "256"]),
    "too long a Reed-Solomon code": ("[[runs]]\n[runs.protection]\nn = 256", ["255", "256"]),
    "float for a length": ("[[runs]]\n[runs.protection]\nn = 2.5", ["n", "int", "2.5"]),
    "no length": ("[[runs]]\n[runs.protection]\nn = 0", ["protection.n", "at least 1", "0"]),
    "a bch code that cannot be": (
        '[[runs]]\n[runs.protection]\nfamily = "bch"\nt = 8',
        ["`t`", "8"],
    ),
    "negative number of errors": (
        '[[runs]]\n[runs.protection]\nfamily = "bch"\nt = -1',
        ["protection.t", "at least 0", "-1"],
    ),
    "too long a secded code": (
        '[[runs]]\n[runs.protection]\nfamily = "secded"\nn = 72\nk = 65',
        ["`n`", "at most 2^(n - k - 1) = 64", "72"],
    ),
    "a repetition without room for a checksum": (
        '[[runs]]\n[runs.protection]\nfamily = "repetition"\nn = 3',
        ["checksum_bits", "32"],
    ),
    "no attempts": (
        "[[runs]]\n[runs.protection]\nmax_attempts = 0",
        ["protection.max_attempts", "at least 1", "0"],
    ),
    "no checksum": (
        "[[runs]]\n[runs.protection]\nchecksum_bits = 0",
        ["protection.checksum_bits", "at least 1", "0"],
    ),
    "negative gap": (
        '[[runs]]\n[runs.protection]\nfamily = "ideal"\ngap = -0.1',
        ["gap", "[0, 2]", "-0.1"],
    ),
    "negative top_symbols": (
        "[[runs]]\n[runs.protection]\ntop_symbols = -1",
        ["protection.top_symbols", "at least 0", "-1"],
    ),
    "more top symbols than the wire has": (
        "[[runs]]\nbits = 8\n[runs.protection]\ntop_symbols = 5",
        ["symbols", "at most the 4 symbols of the wire", "5"],
    ),
    "top symbols of floats": (
        '[[runs]]\nwire = "float32"\n[runs.protection]\ntop_symbols = 5',
        ["wire", "FixedPoint", "Unequal"],
    ),
    "a code for gaussian noise": (
        '[[runs]]\nnoise = "gaussian"\n[runs.protection]\nn = 255',
        ["noise", "protection", "gaussian"],
    ),
    "unknown simulation": (
        '[[runs]]\nsimulate = "fast"',
        ["simulate", "attempts", "symbol", "fast"],
    ),
    "unknown sampler": (
        '[[runs]]\nsampler = "fast"',
        ["runs.0.sampler", "auto", "sparse", "dense", "fast"],
    ),
    "negative resync": (
        "[[runs]]\nresync_every = -1",
        ["runs.resync_every", "at least 0", "-1"],
    ),
    "a change without nodes": (
        "[[runs]]\n[[runs.membership]]\nstep = 3",
        ["runs.0.membership.0.nodes", "be given", "{'step': 3}"],
    ),
    "a change before the first step": (CHANGE.format(0, "0, 1"), ["membership.step", "1", "0"]),
    "a change after the last step": (
        CHANGE.format(250, "0, 1"),
        ["membership.step", "(0, 250)", "within the run", "250"],
    ),
    "a change before the last one": (
        CHANGE.format(9, "0, 1") + CHANGE.format(9, "0, 1, 2").removeprefix("[[runs]]"),
        ["membership.step", "(9, 250)", "after the change before it", "9"],
    ),
    "a change of nothing": (
        CHANGE.format(9, "0, 1, 2, 3, 4, 5, 6, 7"),
        ["membership.nodes", "differ", "(0, 1, 2, 3, 4, 5, 6, 7)"],
    ),
    "a change of sorted shards": (
        'split = "sorted"\n' + CHANGE.format(9, "0, 1"),
        ["runs.membership", "sorted", "left out"],
    ),
    "nobody stays": (CHANGE.format(9, "8, 9"), ["membership.nodes", "keep one", "(8, 9)"]),
    "one node": (CHANGE.format(9, "0"), ["membership.nodes", "two or more", "(0,)"]),
    "a node twice": (CHANGE.format(9, "1, 1"), ["membership.nodes", "different", "(1, 1)"]),
    "nodes in disorder": (CHANGE.format(9, "2, 1"), ["membership.nodes", "ascending", "(2, 1)"]),
    "a negative node": (CHANGE.format(9, "-1, 1"), ["membership.nodes", "at least 0", "-1"]),
    "no guard bits for nodes that join": (
        "nodes = 2\n" + CHANGE.format(9, "0, 1, 2, 3, 4").replace("]]", "]]\nbits = 4", 1),
        ["bits", "5 nodes", "guard", "4"],
    ),
    "masks for the two that stay": (
        "security = { bucket = 3 }\n" + CHANGE.format(9, "0, 1"),
        ["nodes", "at least 3 under masks", "2"],
    ),
    "memory without a compressor": (
        CHANGE.format(9, "0, 1").replace("[[runs]]", '[[runs]]\nmemory = "neighbour"'),
        ["runs.memory", '"fresh" without compression', "neighbour"],
    ),
    "memory of nodes that stay": (
        '[[runs]]\nmemory = "neighbour"\ncompress = { rank = 1 }',
        ["runs.memory", "changes of the nodes", "neighbour"],
    ),
    "nothing to test on": ("[data]\ntest_fraction = 0.0", ["test_fraction", "(0, 1)", "0.0"]),
}


def one_sentence(refusal, words=()):
    message = str(refusal.value)
    assert refusal.type is ValueError, message
    for word in words:
        assert word in message, message
    assert message.startswith("`"), message
    assert message.endswith("."), message
    assert " must " in message, message
    assert "\n" not in message, message
    # "generator object", "<locals>": what is shown must be what was written.
    assert "object at 0x" not in message, message


def test_the_demo_is_what_its_file_says():
    assert load_config(DEMO) == TrainConfig(
        name="demo",
        out="runs",
        data=DataConfig(name="mnist", path=None, test_fraction=0.2, seed=0),
        model="cnn",
        nodes=8,
        batch_per_node=32,
        steps=250,
        learning_rate=4e-3,
        seed=0,
        eval_every=25,
        mapping="auto",
        resume=True,
        runs=(
            RunConfig(name="classical", collective="classical"),
            RunConfig(name="ring-ideal", noise="off"),
            RunConfig(name="ring-noisy", noise="sampled", fidelity=0.99),
            RunConfig(
                name="ring-protected",
                noise="sampled",
                fidelity=0.99,
                protection=CodeConfig("reed_solomon", 255, 223, max_attempts=8, checksum_bits=32),
            ),
        ),
    )


def test_an_empty_file_is_the_default(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert load_config(tmp_path / "empty.toml") == TrainConfig()


def test_the_default_is_one_protected_ring():
    (run,) = TrainConfig().runs
    assert run.name == "ring-protected"
    assert run.collective == "ring"
    ring = run.ring()
    assert ring.noise == "sampled"
    assert ring.protection == Retransmit(reed_solomon(255, 223), 8, 32)
    assert ring.delivers_exactly
    assert float(ring.channel.error_prob) == pytest.approx(0.01, abs=1e-6)


def test_every_field_can_be_said_in_a_file(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(
        """
        name = "all"
        out = "elsewhere"
        model = "mlp"
        nodes = 4
        batch_per_node = 5
        steps = 6
        learning_rate = 1
        seed = 7
        eval_every = 8
        mapping = "shard_map"
        resume = false
        data = { name = "npz", path = "x.npz", test_fraction = 0.5, seed = 9 }
        [[runs]]
        name = "a"
        collective = "ring"
        noise = "mean"
        fidelity = 0.5
        error_prob = 0.25
        wire = "fixed"
        bits = 12
        rounding = "stochastic"
        resync_every = 10
        dephasing = 0.01
        gamma = 0.02
        gate_error = 0.03
        readout_error = 0.04
        survival = 0.9
        sampler = "dense"
        membership = [{ step = 2, nodes = [0, 2, 3] }, { step = 4, nodes = [0, 2, 7] }]
        memory = "neighbour"
        compress = { method = "topk" }
        [[runs]]
        name = "b"
        wire = "bfloat16"
        simulate = "symbol"
        [runs.protection]
        family = "bch"
        n = 127
        k = 99
        t = 4
        max_attempts = 3
        checksum_bits = 8
        [[runs]]
        name = "c"
        clip = "robust"
        liars = 1
        protection = { family = "ideal", gap = 0.1, top_symbols = 2 }
        [runs.security]
        noise = "white"
        ghz_fidelity = 0.9
        target_epsilon = 1e-3
        amplification = "none"
        bucket = 5
        tests = "mixed"
        test_ratio = 2.0
        tolerance = 0.1
        correction = [63, 45, 3]
        attempts = 4
        [[runs]]
        name = "d"
        clip = 0.5
        """
    )
    devices = {"dephasing": 0.01, "gamma": 0.02, "gate_error": 0.03, "readout_error": 0.04}
    run = RunConfig(
        *("a", "ring", "mean", 0.5, 0.25, "fixed", 12, "stochastic"),
        resync_every=10,
        survival=0.9,
        sampler="dense",
        membership=(MembershipConfig(2, (0, 2, 3)), MembershipConfig(4, (0, 2, 7))),
        memory="neighbour",
        compress=CompressConfig("topk"),
        **devices,
    )
    assert run.ring().sampler == "dense"
    data = DataConfig("npz", "x.npz", 0.5, 9)
    bch_code = CodeConfig("bch", 127, 99, 4, max_attempts=3, checksum_bits=8)
    own = SecurityConfig("white", 0.9, 1e-3, "none", 5, "mixed", 2.0, 0.1, (63, 45, 3), 4)
    runs = (
        run,
        RunConfig("b", wire="bfloat16", protection=bch_code, simulate="symbol"),
        RunConfig(
            "c",
            protection=CodeConfig("ideal", gap=0.1, top_symbols=2),
            security=own,
            clip="robust",
            liars=1,
        ),
        RunConfig("d", clip=0.5),
    )
    assert runs[2].ring().wire == FixedPoint(16, clip="robust", liars=1)
    assert runs[3].ring().wire == FixedPoint(16, clip=0.5)
    assert load_config(str(path)) == TrainConfig(
        "all", "elsewhere", data, "mlp", 4, 5, 6, 1.0, 7, 8, "shard_map", False, runs
    )


@pytest.mark.parametrize(
    "config, protection",
    [
        (CodeConfig(), Retransmit(reed_solomon(255, 223), 8, 32)),
        (CodeConfig("reed_solomon", 63, 47, max_attempts=1), reed_solomon(63, 47)),
        (CodeConfig("bch", 255, 223, 4, checksum_bits=16), Retransmit(bch(255, 223, 4), 8, 16)),
        (CodeConfig("bch", 255, 223, 4, max_attempts=1), bch(255, 223, 4)),
        (CodeConfig("secded", 72, 64, max_attempts=2), Retransmit(secded(72, 64), 2, 32)),
        (CodeConfig("repetition", 5, max_attempts=1), repetition(5)),
        (CodeConfig("ideal"), IdealCode(0.0)),
        (CodeConfig("ideal", gap=0.25), IdealCode(0.25)),
        (CodeConfig(top_symbols=3), Unequal(Retransmit(reed_solomon(255, 223)), 3)),
        (CodeConfig("ideal", top_symbols=1), Unequal(IdealCode(), 1)),
    ],
    ids=str,
)
def test_every_family_of_codes_is_built_as_it_is_described(config, protection):
    assert config.build() == protection
    run = RunConfig(protection=config)
    assert run.protection_scheme() == run.ring().protection == protection
    assert RunConfig().ring().protection is None


def test_a_run_has_every_noise_of_a_link():
    values = dict(zip(PARAMETERS, [0.9, 0.05, 0.04, 0.1, 0.02, 0.01, 0.95], strict=True))
    found = RunConfig(**values).ring().channel.transition
    np.testing.assert_array_equal(found, LinkConfig(**values).channel().transition)
    for name in PARAMETERS:  # none of them is without effect
        other = RunConfig(**(values | {name: 0.5})).ring().channel.transition
        assert np.abs(other - found).max() > 1e-3


def test_the_bits_of_a_run_of_two_parameters_are_those_of_its_two_channels():
    for fidelity in (0.25, 0.9, 0.95, 0.99, 1.0):
        for error_prob in (0.0, 0.1):
            sent = depolarizing(error_prob=error_prob)
            alone = superdense(werner(fidelity=fidelity), sent=sent).transition
            run = RunConfig(fidelity=fidelity, error_prob=error_prob)
            assert run.ring().channel.transition.tobytes() == alone.tobytes()


def test_files_leave_out_what_was_added_later_at_its_default():
    written = as_written(RunConfig())
    later = {*PARAMETERS[2:], "compress", "optimizer", "momentum", "learning_rate", "sampler"}
    later |= {"membership", "memory", "clip", "liars", "outer", "robust", "attack"}
    assert written == {n: v for n, v in asdict(RunConfig()).items() if n not in later}
    assert {"fidelity", "error_prob", "bits", "protection"} <= set(written)
    assert as_written(RunConfig(survival=0.9)) == {**written, "survival": 0.9}
    compressed = as_written(RunConfig(compress=CompressConfig("topk", fraction=0.1)))
    assert compressed["compress"] == {
        **dict.fromkeys(field.name for field in fields(CompressConfig)),
        "method": "topk",
        "fraction": 0.1,
    }
    assert not {"optimizer", "momentum", "quantum"} & as_written(TrainConfig()).keys()
    assert not {"validation", "features"} & as_written(DataConfig()).keys()
    change = RunConfig(membership=(MembershipConfig(2, (0, 1)),))
    assert as_written(change) == {**written, "membership": ({"step": 2, "nodes": (0, 1)},)}
    assert as_written(TrainConfig())["runs"][0]["protection"] == asdict(CodeConfig())


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_that_is_shipped_is_known_by_its_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = {
        "budget": BudgetConfig,
        "quantum_budget": BudgetConfig,
        "sensitivity": SensitivityConfig,
    }
    kinds |= {"inversion": InversionConfig, "robust": RobustConfig}
    kinds |= {"outer": OuterConfig, "outer_quick": OuterConfig}
    kinds |= {"compression_noise": CompressionConfig, "compression_rates": CompressionConfig}
    kind = kinds.get(path.stem, TrainConfig)
    kind = SweepConfig if path.stem.startswith("sweep") else kind
    assert packaged_configs()[path.stem].read_text() == path.read_text()
    assert load_config(path.stem, kind) == load_config(path, kind)


def test_a_file_of_the_name_goes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("steps = 7")
    assert load_config("demo") == TrainConfig(steps=7)


def test_an_unknown_name_is_refused_with_those_that_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must") as refusal:
        load_config("dmo")
    one_sentence(
        refusal, ["`config`", "budget, compression, compression_noise", "sweep_fidelity", "'dmo'"]
    )


@pytest.mark.parametrize("text, words", REFUSED.values(), ids=REFUSED)
def test_a_malformed_file_is_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises((ValueError, TypeError)) as refusal:
        load_config(path)
    one_sentence(refusal, words)


@pytest.mark.parametrize("name", ["missing.toml", ""], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match="readable file") as refusal:
        load_config(tmp_path / name)
    one_sentence(refusal, ["`config`", str(tmp_path / name)])


def test_a_file_that_is_not_utf8_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ValueError, match="must") as refusal:
        load_config(path)
    one_sentence(refusal, ["`config`", str(path)])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: TrainConfig(mapping="xmap"), ["mapping", "pmap", "vmap", "xmap"]),
        (lambda: TrainConfig(model="rnn"), ["model", "cnn", "rnn"]),
        (lambda: DataConfig(name="cifar"), ["data.name", "mnist", "cifar"]),
        (lambda: RunConfig(collective="q"), ["collective", "classical", "'q'"]),
        (lambda: RunConfig(wire="int8"), ["wire", "fixed", "int8"]),
        (lambda: RunConfig(noise="on"), ["noise", "sampled", "on"]),
        (lambda: RunConfig(rounding="up"), ["rounding", "nearest", "up"]),
        (lambda: RunConfig(simulate="fast"), ["simulate", "attempts", "fast"]),
        (lambda: CodeConfig(family="ldpc"), ["protection.family", "bch", "ldpc"]),
    ],
    ids=["mapping", "model", "data", "collective", "wire", "noise", "rounding", "sim", "family"],
)
def test_an_unknown_choice_is_refused_without_a_file_too(make, words):
    # Otherwise an unknown data set is silently the digits, an unknown wire silently bfloat16.
    with pytest.raises(ValueError, match="must") as refusal:
        make()
    one_sentence(refusal, words)


def test_guard_bits_are_asked_of_the_rings_alone():
    assert TrainConfig(runs=(RunConfig(collective="classical", bits=4),)).nodes == 8
    assert TrainConfig(runs=(RunConfig(wire="bfloat16", bits=4),)).nodes == 8
    assert TrainConfig(nodes=2, runs=(RunConfig(bits=4),)).nodes == 2


def test_the_nodes_of_a_run_are_those_of_the_job_until_the_first_change():
    changes = (MembershipConfig(100, (0, 1, 3, 4, 6, 7)), MembershipConfig(150, tuple(range(9))))
    classical = RunConfig("classical", "classical", membership=changes)
    config = TrainConfig(steps=200, runs=(classical, RunConfig()))
    assert config.periods(classical) == (
        (0, 100, tuple(range(8))),
        (100, 150, (0, 1, 3, 4, 6, 7)),
        (150, 200, tuple(range(9))),
    )
    assert config.sizes(classical) == (8, 6, 9)
    assert config.periods(RunConfig()) == ((0, 200, tuple(range(8))),)


def test_a_configuration_leaves_the_number_of_devices_to_be_chosen():
    code = f"""
import jax
from jax._src import xla_bridge
import jaxqring, jaxqring.train, jaxqring.cli
config = jaxqring.jobs.load_config({str(DEMO)!r})
jaxqring.jobs._training_config.RunConfig(fidelity=0.9, error_prob=0.1, wire="float32")
assert not xla_bridge.backends_are_initialized()
jax.config.update("jax_num_cpu_devices", 3)
assert len(jax.devices()) == 3
"""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
