"""`jaxqring inversion`: one file for each attack, made once, whatever cuts the job off."""

import contextlib
import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest

from jaxqring import cli
from jaxqring.jobs import InversionConfig, load_config, run_inversion
from jaxqring.jobs import _inversion_job as job
from jaxqring.jobs._compress_config import METHODS, CompressConfig
from jaxqring.show._inversion_figures import draw_inversion
from jaxqring.train._datasets import DataConfig

SMALL = InversionConfig(
    name="small",
    data=DataConfig("digits"),
    networks=("mlp",),
    compressors=(
        CompressConfig("uncompressed"),
        CompressConfig(rank=1),
        CompressConfig(rank=2),
        CompressConfig("topk", fraction=0.1),
    ),
    images=2,
    restarts=1,
    steps=5,
)
#: Each of the first three has four adversaries, the last one cannot be masked.
ATTACKS = 15


class CutError(BaseException):
    """The end of a process, wherever it strikes."""


def without_seconds(summary):
    attacks = [{k: v for k, v in x.items() if k != "seconds"} for x in summary["attacks"]]
    config = {k: v for k, v in summary["config"].items() if k not in ("out", "resume")}
    return json.loads(json.dumps({**summary, "attacks": attacks, "config": config}))


def files(config):
    return {path: path.stat().st_mtime_ns for path in config.folder.glob("results/*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small study that was not cut off, and its summary."""
    config = dataclasses.replace(SMALL, out=str(tmp_path_factory.mktemp("inversion")))
    return config, run_inversion(config)


def test_the_summary_has_every_attack_and_every_closed_form(whole):
    config, summary = whole
    written = json.loads((config.folder / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary))
    assert len(summary["attacks"]) == len(files(config)) == ATTACKS
    for entry in summary["attacks"]:
        assert len(entry["ssim"]) == config.images
        assert entry["ssim_mean"] == pytest.approx(np.mean(entry["ssim"]))
        assert entry["ssim_std"] == pytest.approx(np.std(entry["ssim"]))
    assert {x["adversary"] for x in summary["attacks"] if x["method"] == "topk"} == {
        *("naive", "adaptive", "neighbours")
    }
    assert [x["compressor"] for x in summary["closed_forms"]] == ["PowerSGD r1"]
    assert "Gaussian" in summary["ssim"]


def test_adversaries_that_see_and_do_the_same_have_one_attack(whole):
    _, summary = whole
    made = {(x["method"], x["adversary"]): x["as"] for x in summary["attacks"]}
    assert made["uncompressed", "neighbours"] == made["uncompressed", "adaptive"] == "naive"
    assert made["powersgd", "neighbours"] == "adaptive"
    assert made["powersgd", "masked"] == "masked"
    assert made["topk", "adaptive"] == "adaptive"


def test_a_job_that_was_cut_off_goes_on_with_what_is_missing(whole, tmp_path, monkeypatch):
    _, summary = whole
    config = dataclasses.replace(SMALL, out=str(tmp_path), compressors=SMALL.compressors[:2])
    save, saved = job.save_state, []

    def cut(path, *rest):
        if len(saved) == 6:
            path.with_name(path.name + ".tmp").write_bytes(b"half of")
            raise CutError
        saved.append(path)
        save(path, *rest)

    monkeypatch.setattr(job, "save_state", cut)
    with contextlib.suppress(CutError):
        run_inversion(config)
    assert not (config.folder / "summary.json").exists()
    monkeypatch.setattr(job, "save_state", save)
    before = {path: path.stat().st_mtime_ns for path in saved}
    again = run_inversion(config)
    made = without_seconds(again)["attacks"]
    assert made == without_seconds(summary)["attacks"][:8]
    assert {path: files(config)[path] for path in saved} == before
    assert len([path for path in files(config) if path.suffix == ".msgpack"]) == 8


def test_only_attacks_that_a_change_concerns_are_made_again(whole, monkeypatch):
    config, summary = whole
    monkeypatch.setattr(job._Study, "make", None)
    assert without_seconds(run_inversion(config)) == without_seconds(summary)
    fewer = dataclasses.replace(config, compressors=config.compressors[1:])
    assert len(run_inversion(fewer)["attacks"]) == ATTACKS - 4
    for change in ({"steps": 6}, {"seed": 1}, {"resume": False}):
        changed = dataclasses.replace(config, **change)
        attacks = changed.attacks()
        stale = [a for a in attacks if not (changed.resume and job._is_finished(changed, a))]
        assert len(stale) == ATTACKS
    run_inversion(config)  # the summary of the others again


def test_the_images_are_the_first_of_each_class_in_turn():
    data = job.load(SMALL.data)
    images, labels = job.victims_of(dataclasses.replace(SMALL, images=12), data)
    assert labels.tolist() == [*range(10), 0, 1]
    zeros = data.test_images[data.test_labels == 0]
    np.testing.assert_array_equal(np.asarray(images)[[0, 10]], zeros[:2])


def test_too_many_images_are_refused_before_anything_is_written(tmp_path):
    config = dataclasses.replace(SMALL, out=str(tmp_path), images=10_000)
    with pytest.raises(ValueError, match="`images` must be at most the 360 of the test set"):
        run_inversion(config)
    assert not config.folder.exists()


def test_the_figures_are_drawn(whole):
    config, summary = whole
    paths = draw_inversion(config, summary)
    assert [path.name for path in paths] == ["reconstructions_mlp.png", "ssim_rank.png"]
    for path in paths:
        picture = matplotlib.image.imread(path)[..., :3]
        assert picture.shape[1] > 600
        assert (picture.min(-1) < 0.9).mean() > 0.01


def test_the_shipped_configuration_loads():
    config = load_config("configs/inversion.toml", InversionConfig)
    assert (config.images, config.restarts) == (10, 4)
    assert config.networks == ("smooth", "cnn")
    assert {compressor.method for compressor in config.compressors} <= {*METHODS}
    assert "LQ-SGD r1 8 bits" in [compressor.label() for compressor in config.compressors]


@pytest.mark.parametrize(
    "text, words",
    [
        ("steps = 0", ["`steps`", "at least 1"]),
        ("tv = -0.1", ["`tv`", "-0.1"]),
        ("rate = 0.0", ["`rate`", "0.0"]),
        ('networks = ["vgg"]', ["networks", "vgg"]),
        ("networks = []", ["`networks`", "at least one entry"]),
        ('adversaries = ["naive", "naive"]', ["`adversaries`", "once"]),
        ("[[compressors]]\nrank = 1\n[[compressors]]\nrank = 1", ["`compressors`", "once"]),
        ('[[compressors]]\nmethod = "zip"', ["method", "zip"]),
        ("[[compressors]]\nfraction = 0.1", ["`compress.fraction`", "powersgd", "0.1"]),
        (
            '[[compressors]]\nmethod = "uncompressed"\nrank = 1',
            ["`compress.rank`", '"uncompressed"'],
        ),
        ('[[compressors]]\nmethod = "topk"\nfraction = 1.5', ["`fraction`", "1.5"]),
        ("[[compressors]]\nrank = 0", ["`compress.rank`", "0"]),
        ('name = "a/b"', ["`name`", "a/b"]),
        ("[data]\nfeatures = 8", ["`data.features`", "images", "8"]),
        ("widgets = 3", ["unknown keys", "widgets"]),
    ],
)
def test_bad_configurations_are_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "inversion.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as refusal:
        load_config(path, InversionConfig)
    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_built_and_named(method):
    config = CompressConfig(method)
    assert isinstance(config.build(), METHODS[method][0])
    assert config.label() == METHODS[method][1]


@pytest.mark.matrix
def test_the_command_prints_tables_and_writes_files(tmp_path, capsys):
    flags = [
        "--data.name",
        "digits",
        "--networks",
        "mlp",
        "--images",
        "2",
        "--restarts",
        "1",
        "--steps",
        "3",
    ]
    assert cli.main(["inversion", *flags, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for words in ("mean ± std over 2 images", "naive", "masked", "PowerSGD r1", "worst"):
        assert words in printed
    names = {path.name for path in (tmp_path / "inversion").iterdir()}
    pictures = {"reconstructions_mlp.png", "reconstructions_mlp.svg"}
    assert names == {"results", "summary.json", *pictures}
