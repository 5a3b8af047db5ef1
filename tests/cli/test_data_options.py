"""What `--data`, `--share` and their like say together, without a training."""

from types import SimpleNamespace

import pytest

from keras_mrpose.cli import data_options
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import BODY19
from keras_mrpose.training.config import Experiment


def given(*data, **options):
    named = {"data": list(data), "share": [], "skeleton": None, "crops_per_epoch": None, **options}
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
    ],
)
def test_mistakes(data, options, words):
    with pytest.raises(InputError, match=words):
        given(*data, **options)


def test_no_crops_are_not_the_default():
    found = given("lsp=a", "coco=b", crops_per_epoch=0)
    with pytest.raises(InputError, match="crops_per_epoch is 0; give a positive whole number"):
        Experiment("x", crops_per_epoch=found.crops_per_epoch)
