"""The compression that a file says is the compressor that is built, or it is refused."""

import dataclasses

import pytest

from jaxqring import Retransmit, Ring, reed_solomon
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
    Uncompressed,
)
from jaxqring.jobs import CompressConfig, CompressionConfig, TrainConfig, load_config
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import METHODS
from jaxqring.jobs._compression_job import CurveConfig
from jaxqring.jobs._run_config import RunConfig

BUILT = {
    'method = "uncompressed"': Uncompressed(),
    'method = "uncompressed"\nbits = 8': Uncompressed(8),
    "": PowerSGD(),
    "rank = 3\nbits = 9\nerror_feedback = false\nwarm_start = false": PowerSGD(3, 9, False, False),
    "share_factors = true\nseed = 0": PowerSGD(share_factors=True, seed=0),
    'method = "lqsgd"\nrank = 2\nbits = 6\nalpha = 3.5\nreduce = "hop"\nseed = 4': (
        LQSGD(2, 6, 3.5, "hop", seed=4)
    ),
    'method = "topk"\nfraction = 0.1\nbits = 8\nerror_feedback = false': TopK(0.1, 8, False),
    'method = "dgc"\nfraction = 0.1\nmomentum = 0.5\nbits = 8\nclip = 2': DGC(0.1, 0.5, 8, 2.0),
    'method = "dgc"': DGC(),
    'method = "randomk"\nfraction = 0.1': RandomK(0.1),
    'method = "terngrad"': TernGrad(2.5),
    'method = "terngrad"\nclip = 3': TernGrad(3.0),
    'method = "terngrad"\nclip = 0': TernGrad(None),
    'method = "qsgd"\nlevels = 3\nnorm = "max"': QSGD(3, "max"),
    'method = "sign"': SignVote(),
    'method = "sign"\nmomentum = 0.9': SignVote(0.9),
    'method = "demo"\ndecay = 0.99\nk = 4\nrate = 2.0\nbits = 8': DeMo(0.99, 4, 2.0, 8),
}


@pytest.mark.parametrize("text, compressor", BUILT.items(), ids=range(len(BUILT)))
def test_a_file_says_the_compressor(tmp_path, text, compressor):
    path = tmp_path / "job.toml"
    path.write_text(f"[[runs]]\n[runs.compress]\n{text}\n")
    (run,) = load_config(path).runs
    assert run.compressor() == compressor
    assert RunConfig().compressor() is None


def test_every_option_of_every_method_can_be_said():
    kinds = {kind for kind, _ in METHODS.values()}
    assert {type(compressor) for compressor in BUILT.values()} == kinds
    options = {field.name for field in dataclasses.fields(CompressConfig)}
    for kind in kinds:
        assert {field.name for field in dataclasses.fields(kind)} <= options


COMPRESS = "[[runs]]\n{}\n[runs.compress]\n{}"
REFUSED = {
    "unknown method": (COMPRESS.format("", 'method = "zip"'), ["method", "powersgd", "zip"]),
    "unknown option": (COMPRESS.format("", "ranks = 2"), ["unknown keys", "ranks"]),
    "option of another method": (
        COMPRESS.format("", 'method = "topk"\nrank = 2'),
        ["compress.rank", 'left out of "topk"', "2"],
    ),
    "norm of another method": (
        COMPRESS.format("", 'norm = "max"'),
        ["compress.norm", 'left out of "powersgd"', "max"],
    ),
    "no rank": (COMPRESS.format("", "rank = 0"), ["compress.rank", "at least 1", "0"]),
    "negative seed": (COMPRESS.format("", "seed = -1"), ["compress.seed", "at least 0", "-1"]),
    "string for a rank": (COMPRESS.format("", 'rank = "2"'), ["rank", "int", "2"]),
    "more than all": (
        COMPRESS.format("", 'method = "topk"\nfraction = 1.5'),
        ["fraction", "(0, 1]", "1.5"],
    ),
    "a parameter server": (
        COMPRESS.format("", 'method = "lqsgd"\nreduce = "server"'),
        ["reduce", "gather", "server"],
    ),
    "an odd number of bits": (
        COMPRESS.format("", 'method = "lqsgd"\nreduce = "hop"\nbits = 7'),
        ["bits", "even", "7"],
    ),
    "no ring": (
        COMPRESS.format('collective = "classical"', "rank = 2"),
        ["runs.compress", "classical run"],
    ),
    "floats on the wire": (
        COMPRESS.format('wire = "bfloat16"', "rank = 2"),
        ["runs.wire", '"fixed" under compression', "bfloat16"],
    ),
    "masks on codes that do not add up": (
        COMPRESS.format('security = { bucket = 3 }\nnoise = "off"', 'method = "topk"'),
        ["runs.compress", "sum", "topk"],
    ),
    "masks of the job on such codes": (
        "[security]\nbucket = 3\n" + COMPRESS.format('noise = "off"', 'method = "lqsgd"'),
        ["runs.compress", "sum", "lqsgd"],
    ),
    "momentum of Adam": ("[[runs]]\nmomentum = 0.9", ["runs.momentum", '"sgd"', "0.9"]),
    "momentum without an end": (
        '[[runs]]\noptimizer = "sgd"\nmomentum = 1.0',
        ["runs.momentum", "[0, 1)", "1.0"],
    ),
    "momentum of a job without an end": ("momentum = 1.0", ["momentum", "[0, 1)", "1.0"]),
    "unknown optimizer": ('optimizer = "lion"', ["optimizer", "adam", "lion"]),
    "unknown optimizer of a run": ('[[runs]]\noptimizer = "lion"', ["optimizer", "adam", "lion"]),
    "no learning": ("[[runs]]\nlearning_rate = 0.0", ["runs.learning_rate", "(0, inf)", "0.0"]),
    "nothing left to train on": ("[data]\nvalidation = 1.0", ["validation", "[0, 1)", "1.0"]),
}
REFUSED_STUDIES = {
    "no parameter": ("[grid]", ["grid", "one parameter", "{}"]),
    "two parameters": ("[grid]\nfidelity = [0.9]\nsurvival = [0.9]", ["grid", "one parameter"]),
    "another parameter": ("[grid]\nbits = [8.0]", ["grid", "fidelity", "bits"]),
    "no values": ("[grid]\nfidelity = []", ["grid.fidelity", "at least one value"]),
    "no fidelity": ("[grid]\nfidelity = [0.1]", ["grid.fidelity", "[0.25, 1]"]),
    "no learning": ("[grid]\nlearning_rate = [0.0]", ["grid.learning_rate", "[1e-09, 1000]"]),
    "no curves": ("curves = []", ["curves", "at least one curve", "[]"]),
    "two curves of one name": (
        '[[curves]]\nname = "a"\n[[curves]]\nname = "a"',
        ["curves", "name of its own"],
    ),
    "calls of a bare ring": (
        '[[curves]]\nname = "a"\nprotected_calls = 1\ncompress = { rank = 1 }',
        ["curves.protected_calls", "0 without a protection", "1"],
    ),
    "no panel": ('[[curves]]\nname = "a"\npanels = []', ["curves.panels", "at least one", "()"]),
    "no room for sums": ("bits = 4", ["bits", "8 nodes", "4"]),
}


@pytest.mark.parametrize(
    "kind, text, words",
    [
        *[(TrainConfig, *case) for case in REFUSED.values()],
        *[(CompressionConfig, *case) for case in REFUSED_STUDIES.values()],
    ],
    ids=[*REFUSED, *[f"study: {name}" for name in REFUSED_STUDIES]],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, kind, text, words):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^`[^`]+` must [^\n]+\.$") as refusal:
        load_config(path, kind)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def test_the_first_collectives_of_a_step_can_be_protected_alone():
    code = CodeConfig("reed_solomon", 63, 47)
    method = CompressConfig("powersgd")
    bare = Ring(noise="off")
    strong = dataclasses.replace(bare, protection=Retransmit(reed_solomon(63, 47)))
    assert CurveConfig("a", method).rings(bare) == bare
    assert CurveConfig("a", method, protection=code).rings(bare) == strong
    first = CurveConfig("a", method, protection=code, protected_calls=1)
    assert first.rings(bare) == (strong, bare)
