"""What `--data`, `--share` and their like say together, without a training."""

import json
from types import SimpleNamespace

import pytest

from keras_mrpose.cli import data_options
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import BODY19
from keras_mrpose.training.config import Experiment


def given(*data, **options):
    named = {"data": list(data), "share": [], "skeleton": None, "crops_per_epoch": None}
    named |= {"train_split": None, "val_split": None, "val_share": None, "val_seed": 0, **options}
    return data_options._with_options(data_options.mixture_of(named["data"]), SimpleNamespace(**named))


def test_names_shares_and_the_skeleton():
    found = given("lsp=a/b", "coco=c=d", share=["coco=0.25"], crops_per_epoch=100)
    assert [str(folder.data) for folder in found.folders] == ["a/b", "c=d"]
    assert [(source.name, source.share) for source in found.sources] == [("lsp", None), ("coco", 0.25)]
    assert (found.skeleton, found.crops_per_epoch) == (BODY19, 100)
    assert data_options.mixture_of(["folder"]) is None


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (("lsp=a", "b"), {}, "--data is 'b' beside others"),
        (("lsp=a", "lsp=b"), {}, "the name 'lsp' twice"),
        (("lsp=a", "coco=b"), {"share": ["mpii=0.5"]}, "--share names 'mpii'"),
        (("lsp=a", "coco=b"), {"share": ["coco=half"]}, "--share is 'coco=half'"),
        (("lsp=a", "coco=b"), {"skeleton": "nothing.json"}, "nothing.json is not there"),
        (("lsp=a", "coco=b"), {"val_share": 0.1, "val_split": "val"}, "leave --val-split out"),
        (("lsp=a", "coco=b"), {"val_seed": 3}, "give --val-share, such as 0.1"),
        (("lsp=a", "coco=b"), {"val_share": 1.0}, "val_share is 1.0; give a share"),
        (("lsp=a", "coco=b"), {"val_share": 0.1, "train_split": "train[:5]"}, "a share can be held out of a whole"),
    ],
)
def test_mistakes(data, options, words):
    with pytest.raises(InputError, match=words):
        given(*data, **options)


def test_splits_of_several():
    found = given("lsp=a", "coco=b", val_share=0.125, val_seed=3)
    assert {(folder.train, folder.val) for folder in found.folders} == {("train@3[12.5%:]", "train@3[:12.5%]")}
    assert {folder.val for folder in given("lsp=a", "coco=b").folders} == {"val"}


def test_a_run_is_evaluated_on_what_it_was_validated_on(tmp_path, capsys):
    """Unless another split is named; a network that is no run's, and an older run, have val."""
    no_option = SimpleNamespace(split=None)
    assert data_options.split_of(no_option) == data_options.split_of(no_option, tmp_path) == "val"
    Experiment("x", train_split="train@0[10%:]", val_split="train@0[:10%]").save(tmp_path / "config.json")
    for network in (tmp_path, tmp_path / "best.keras"):
        assert data_options.split_of(no_option, network) == "train@0[:10%]"
    assert "split train@0[:10%], as" in capsys.readouterr().out
    assert data_options.split_of(SimpleNamespace(split="test"), tmp_path) == "test"
    content = json.loads((tmp_path / "config.json").read_text())
    del content["train_split"], content["val_split"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert data_options.split_of(no_option, tmp_path) == "val"


def test_no_crops_are_not_the_default():
    found = given("lsp=a", "coco=b", crops_per_epoch=0)
    with pytest.raises(InputError, match="crops_per_epoch is 0; give a positive whole number"):
        Experiment("x", crops_per_epoch=found.crops_per_epoch)
