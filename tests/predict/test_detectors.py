"""Detectors: what they are shown, where in the image their boxes come back, and what is no detector."""

import json

import dots
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mrpose.errors import InputError
from keras_mrpose.predict import detectors
from keras_mrpose.predict.detectors import BoxesFile, KerasHubDetector, LiteRTDetector, letterbox, suppress
from keras_mrpose.predict.predictor import Predictor, found_boxes, overlap

SIZE = (20, 30)  # height, width of the small networks' input
# Shares of it: ymin, xmin, ymax, xmax, of boxes beside each other.
SHARES = np.array([[0.1, 0.2, 0.6, 0.4], [0.1, 0.5, 0.6, 0.6], [0.7, 0.2, 0.9, 0.8]], np.float32)
COLOUR = (51, 204, 102)  # 0.2, 0.8, 0.4


def convert(function, path, *inputs):
    """A `.tflite` file of a function of images."""
    graph = tf.function(function).get_concrete_function(*inputs)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([graph], function).convert())
    return path


def image_input(dtype=tf.float32, batch=1):
    return tf.TensorSpec((batch, *SIZE, 3), dtype)


def red_green_blue(image, low=0.0, high=255.0):
    """Scores ``(1, 3)`` that say what the network sees at row 2, column 3."""
    return (tf.cast(image[:, 2, 3], tf.float32) - low) / (high - low)


def four(order, dtype=tf.float32, low=0.0, high=255.0):
    """A network with the outputs of TensorFlow's detection models in this order; the second box is of class 2."""

    def outputs(image):
        found = {
            "boxes": tf.constant(SHARES[None]),
            "classes": tf.constant([[0.0, 2.0, 0.0]]),
            "scores": red_green_blue(image, low, high),
            "count": tf.constant([3.0]),
        }
        return [found[name] for name in order]

    return outputs, image_input(dtype)


def plain(height, width):
    return np.full((height, width, 3), COLOUR, np.uint8)


# --- LiteRT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("boxes", "classes", "scores", "count"), ("count", "scores", "classes", "boxes")])
def test_four_outputs_in_any_order(order, tmp_path):
    """Boxes 0 and 2 are people, the likelier first: 0.4 of the blue, 0.2 of the red."""
    function, given = four(order)
    find = LiteRTDetector(convert(function, tmp_path / "net.tflite", given), score_threshold=0.1)
    boxes, scores = find(plain(*SIZE))
    np.testing.assert_allclose(boxes, [[6, 14, 18, 4], [6, 2, 6, 10]], atol=1e-5)
    np.testing.assert_allclose(scores, [0.4, 0.2], atol=1e-6)
    find.person_class = 2
    boxes, scores = find(plain(*SIZE))
    np.testing.assert_allclose(boxes, [[15, 2, 3, 10]], atol=1e-5)
    np.testing.assert_allclose(scores, [0.8], atol=1e-6)
    find.person_class = 1
    assert [part.shape for part in find(plain(*SIZE))] == [(0, 4), (0,)]
    find.person_class = 0
    assert len(find(np.zeros((*SIZE, 3), np.uint8))[0]) == 0  # scores are whole numbers, too: all 0


@pytest.mark.parametrize(
    ("dtype", "low", "high", "options"),
    [
        (tf.uint8, 0, 255, {}),
        (tf.int8, -128, 127, {}),
        (tf.float32, -1, 1, {"value_range": (-1.0, 1.0)}),
    ],
    ids=["uint8", "int8", "-1..1"],
)
def test_what_the_network_sees(dtype, low, high, options, tmp_path):
    """Its scores are the image's red and blue, as shares of black to white in the numbers of its input."""
    function, given = four(("boxes", "classes", "scores", "count"), dtype, low, high)
    find = LiteRTDetector(convert(function, tmp_path / "net.tflite", given), score_threshold=0.0, **options)
    np.testing.assert_allclose(find(plain(*SIZE))[1], [0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(find(255 - plain(*SIZE))[1], [0.8, 0.6], atol=1e-6)


@pytest.fixture(scope="module")
def boxes_and_scores(tmp_path_factory):
    """A network of the other kind, whose scores are red, green and blue."""
    path = tmp_path_factory.mktemp("net") / "net.tflite"
    return convert(lambda image: [red_green_blue(image), tf.constant(SHARES[None])], path, image_input())


def test_boxes_come_back_in_image_pixels(boxes_and_scores):
    find = LiteRTDetector(boxes_and_scores, score_threshold=0.5)
    # Half as large, at the left: 20 rows, 15 columns. Box 1 is from row 2 to 12, from column 15 to 18: outside it.
    np.testing.assert_allclose(find(plain(40, 30))[0], [[30, 4, 6, 20]], atol=1e-5)
    # A third, at the top: 30 columns, 20 / 3 rows, which are 7.
    np.testing.assert_allclose(find(plain(20, 90))[0], [[45, 2 * 20 / 7, 9, 10 * 20 / 7]], atol=1e-5)
    # Larger: three times.
    np.testing.assert_allclose(find(plain(5, 10))[0], [[5, 2 / 3, 1, 10 / 3]], atol=1e-5)
    for shape in ((40, 30), (20, 90), (5, 10)):  # row 2, column 3 shows the image
        np.testing.assert_allclose(find(plain(*shape))[1], [0.8], atol=1e-6)


def test_the_score_threshold(boxes_and_scores):
    for threshold, count in ((0.0, 3), (0.199, 3), (0.21, 2), (0.41, 1), (0.81, 0)):
        assert len(LiteRTDetector(boxes_and_scores, threshold)(plain(*SIZE))[1]) == count


def test_scores_of_several_classes(tmp_path):
    """A box's score is that of people alone, whatever other class is likelier."""

    def outputs(image):
        scores = red_green_blue(image)
        return [tf.constant(SHARES[None]), tf.stack([scores, 1 - scores], axis=2)]

    path = convert(outputs, tmp_path / "net.tflite", image_input())
    np.testing.assert_allclose(LiteRTDetector(path)(plain(*SIZE))[1], [0.8, 0.4], atol=1e-6)
    np.testing.assert_allclose(LiteRTDetector(path, person_class=1)(plain(*SIZE))[1], [0.8, 0.6], atol=1e-6)
    with pytest.raises(InputError, match=r"shapes .*\(1, 3, 2\)"):
        LiteRTDetector(path, person_class=2)


def test_suppression():
    """Of two that overlap by more than half the better one stays; box 1 covers 0.6 of box 0, box 2 0.45."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 4.5, 10], [40, 0, 10, 10]])
    np.testing.assert_array_equal(suppress(boxes, np.array([0.9, 0.8, 0.7, 0.95]))[0], boxes[[3, 0, 2]])
    kept, scores = suppress(boxes, np.array([0.3, 0.8, 0.7, 0.1]))  # box 1 covers 0.27 of 7.23 of box 2
    np.testing.assert_array_equal(kept, boxes[[1, 2, 3]])
    np.testing.assert_array_equal(scores, [0.8, 0.7, 0.1])
    assert [part.shape for part in suppress(np.zeros((0, 4)), np.zeros(0))] == [(0, 4), (0,)]


def test_letterbox():
    image = np.random.default_rng(0).integers(0, 256, (30, 80, 3), np.uint8)
    canvas, scale = letterbox(image, (60, 40))
    assert canvas.shape == (60, 40, 3) and not canvas[15:].any()
    np.testing.assert_array_equal(scale, [0.5, 0.5])
    # Half the size by areas: each pixel is the mean of four.
    means = image.reshape(15, 2, 40, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(canvas[:15], means, atol=0.51)
    assert letterbox(image, (1, 1))[0].shape == (1, 1, 3)


def test_files_that_are_no_detector(tmp_path):
    count = image_input()
    wrong = {
        "alone": (lambda image: [red_green_blue(image)], [count]),
        "pairs": (lambda a, b: [red_green_blue(a), red_green_blue(b)[..., None] * SHARES[None]], [count, count]),
        "short": (lambda image: [red_green_blue(image)[:, :2], tf.constant(SHARES[None])], [count]),
        "batch": (lambda image: [red_green_blue(image), tf.constant(np.stack([SHARES] * 2))], [image_input(batch=2)]),
        "three": (lambda image: [red_green_blue(image), red_green_blue(image)[0], tf.constant(SHARES[None])], [count]),
    }
    for name, (function, inputs) in wrong.items():
        path = convert(function, tmp_path / f"{name}.tflite", *inputs)
        with pytest.raises(InputError, match=rf"{name}\.tflite has inputs and outputs of shapes \[\(.*\)\]; give one"):
            LiteRTDetector(path)
    (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:300])
    (tmp_path / "page.tflite").write_text("<html>not found</html>")
    for name, words in (("cut", "cannot be read"), ("page", "cannot be read"), ("gone", "is not there")):
        with pytest.raises(InputError, match=rf"The detector .*{name}\.tflite {words}") as caught:
            detectors.detector(tmp_path / f"{name}.tflite")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"Unknown detector 'yolo'; give a \.tflite file"):
        detectors.detector("yolo")


@pytest.mark.slow
def test_nanodet_on_coco(shared):
    """What was measured of this file before: it finds 80 % of the people with keypoints, at 76 % precision.

    Precision counts everybody, and leaves out boxes in crowds, which are not labelled one by one. The tolerances are
    two standard deviations of such shares of the 174 people and of the 287 boxes that there are.
    """
    file, data = shared / "data" / "detectors" / "nanodet_person.tflite", shared / "data" / "coco"
    if not file.exists():
        pytest.skip("needs a detector that is not part of the package")
    content = json.loads((data / "annotations" / "person_keypoints_val2017.json").read_text())
    find = detectors.detector(file)
    hits = {True: 0, False: 0}  # people with keypoints, and without
    wrong, labelled = 0, sum(record["num_keypoints"] > 0 for record in content["annotations"])
    for image in content["images"]:
        pixels = np.asarray(Image.open(data / "val2017" / image["file_name"]).convert("RGB"))
        records = [record for record in content["annotations"] if record["image_id"] == image["id"]]
        people = [record for record in records if not record["iscrowd"]]
        crowds = [record["bbox"] for record in records if record["iscrowd"]]
        boxes, scores = find(pixels)
        assert (np.diff(scores) <= 0).all()
        for box in boxes:
            shares = overlap(box, np.reshape([person["bbox"] for person in people], (-1, 4)))
            if shares.max(initial=0) >= 0.5:
                hits[people.pop(int(shares.argmax()))["num_keypoints"] > 0] += 1
            else:
                wrong += not any(covered(box, np.array(crowd)) >= 0.5 for crowd in crowds)
    found = sum(hits.values()) + wrong
    recall, precision = hits[True] / labelled, sum(hits.values()) / found
    assert recall == pytest.approx(0.80, abs=2 * (0.8 * 0.2 / labelled) ** 0.5), (recall, labelled)
    assert precision == pytest.approx(0.76, abs=2 * (0.76 * 0.24 / found) ** 0.5), (precision, found)


def covered(box, other):
    """Share of a box that another covers."""
    sides = np.minimum(box[:2] + box[2:], other[:2] + other[2:]) - np.maximum(box[:2], other[:2])
    return np.prod(np.maximum(sides, 0)) / np.prod(box[2:])


# --- KerasHub ---------------------------------------------------------------------------------------------------------


def test_kerashub_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    with pytest.raises(InputError, match=r"dfine_nano_coco is of KerasHub: pip install .*\[detect\]"):
        detectors.detector("keras_hub:dfine_nano_coco")


class Decoder:
    """A stand-in for KerasHub's suppression, of which only the settings matter."""

    def __init__(self, confidence_threshold=0.5, bounding_box_format="yxyx"):
        self.confidence_threshold, self.bounding_box_format = confidence_threshold, bounding_box_format

    def get_config(self):
        return vars(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Converter:
    """A stand-in for KerasHub's image converter."""

    def __init__(self, image_size, crop_to_aspect_ratio=False, pad_to_aspect_ratio=False):
        self.image_size = image_size
        self.crop_to_aspect_ratio, self.pad_to_aspect_ratio = crop_to_aspect_ratio, pad_to_aspect_ratio


class HubModel:
    """A stand-in for an object detector of KerasHub: three boxes of given corners, the second of another class."""

    def __init__(self, corners, converter, form="yxyx"):
        self.corners, self.bounding_box_format = np.array(corners, np.float32), form
        self.preprocessor = type("Preprocessor", (), {"image_converter": converter})()
        self.prediction_decoder = Decoder(bounding_box_format=form)

    def predict(self, images, verbose):
        self.seen = images
        labels, scores = np.array([0, 3, 0, -1]), np.array([0.5, 0.9, 0.6, -1], np.float32)
        boxes = np.concatenate([self.corners, -np.ones((1, 4), np.float32)])
        return {"boxes": boxes[None], "labels": labels[None], "confidence": scores[None], "num_detections": [3]}


@pytest.mark.parametrize("form", ["yxyx", "xyxy", "rel_yxyx", "rel_xyxy"])
@pytest.mark.parametrize("kind", ["stretched", "cropped", "padded", "as it is"])
def test_boxes_of_kerashub(form, kind):
    """They come back in the image's pixels, whatever format and size the network has; the image is 60 x 100."""
    height, width = (60, 100) if kind == "as it is" else (30, 25)
    sizes = {"stretched": (0.25, 0.5), "cropped": (0.25, 0.25), "padded": (0.25, 0.25), "as it is": (1, 1)}
    wanted = np.array([[20, 8, 40, 16], [4, 4, 8, 8], [60, 20, 30, 20.0]])  # x, y, w, h in the image
    corners = np.concatenate([wanted[:, :2], wanted[:, :2] + wanted[:, 2:]], axis=1) * np.tile(sizes[kind], 2)
    if form.startswith("rel"):
        corners /= (width, height, width, height)
    if form.endswith("yxyx"):
        corners = corners[:, [1, 0, 3, 2]]
    flags = {"cropped": {"crop_to_aspect_ratio": True}, "padded": {"pad_to_aspect_ratio": True}}.get(kind, {})
    model = HubModel(corners, Converter(None if kind == "as it is" else (height, width), **flags), form)
    find = KerasHubDetector("", model=model)
    boxes, scores = find(plain(60, 100))
    np.testing.assert_allclose(boxes, wanted[[2, 0]], atol=1e-4)
    np.testing.assert_allclose(scores, [0.6, 0.5])
    assert model.seen.shape == (1, height, width, 3)
    assert (model.seen[0, -1] == COLOUR).all() == (kind in ("stretched", "as it is"))  # else black
    assert model.prediction_decoder.confidence_threshold == 0.3  # as ours, not 0.5
    assert len(KerasHubDetector("", score_threshold=0.55, model=model)(plain(60, 100))[0]) == 1


@pytest.fixture(scope="module")
def dfine():
    """A small random D-FINE of KerasHub for images of 64 x 64 pixels."""
    keras_hub = pytest.importorskip("keras_hub", reason="needs KerasHub, the extra `detect`")
    keras.utils.set_random_seed(0)
    pyramid = keras_hub.models.HGNetV2Backbone(
        stem_channels=[3, 16, 16],
        stackwise_stage_filters=[[16, 16, 32, 1, 1, 3], [32, 16, 64, 1, 1, 3], [64, 32, 64, 1, 1, 3]],
        apply_downsample=[False, True, True],
        use_lightweight_conv_block=[False, False, True],
        depths=[1, 1, 1],
        hidden_sizes=[32, 64, 64],
        embedding_size=16,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=(64, 64, 3),
        out_features=["stage2", "stage3"],
    )
    backbone = keras_hub.models.DFineBackbone(
        backbone=pyramid,
        decoder_in_channels=[32, 32],
        encoder_hidden_dim=32,
        num_denoising=0,
        num_labels=3,
        hidden_dim=32,
        learn_initial_query=False,
        num_queries=12,
        anchor_image_size=(64, 64),
        feat_strides=[8, 16],
        num_feature_levels=2,
        encoder_in_channels=[64, 64],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=32,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=1,
        out_features=["stage2", "stage3"],
        image_shape=(64, 64, 3),
    )
    converter = keras_hub.layers.DFineImageConverter(image_size=(64, 64), scale=1 / 255, crop_to_aspect_ratio=False)
    preprocessor = keras_hub.models.DFineObjectDetectorPreprocessor(image_converter=converter)
    return keras_hub.models.DFineObjectDetector(backbone=backbone, num_classes=3, preprocessor=preprocessor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasHub's and its dependencies'
def test_a_dfine_of_kerashub(dfine, tmp_path):
    """Its raw outputs, decoded here by hand: centres and sizes as shares of the image, and logits of classes.

    Then the same detector from a folder that it was saved to, as `--detector keras_hub:FOLDER` loads it.
    """
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    find = KerasHubDetector("", score_threshold=0.001, model=dfine)
    boxes, scores = find(image)
    assert len(boxes)
    raw = dfine(detectors._resized(image, (64, 64))[None] / np.float32(255))
    shares, logits = (np.asarray(raw[name], np.float64)[0] for name in ("pred_boxes", "logits"))
    likely = 1 / (1 + np.exp(-logits))
    people = np.flatnonzero(likely.argmax(axis=1) == 0)
    wanted = np.concatenate([shares[:, :2] - shares[:, 2:] / 2, shares[:, 2:]], axis=1) * (90, 50, 90, 50)
    assert len(boxes) <= len(people)
    for box, score in zip(boxes, scores, strict=True):
        row = people[np.abs(wanted[people] - box).max(axis=1).argmin()]
        np.testing.assert_allclose(box, wanted[row], atol=0.01)
        np.testing.assert_allclose(score, likely[row, 0], atol=1e-4)
    dfine.save_to_preset(str(tmp_path / "saved"))
    again = detectors.detector(f"keras_hub:{tmp_path / 'saved'}", score_threshold=0.001)
    for one, other in zip(again(image), (boxes, scores), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    with pytest.raises(InputError, match=r"KerasHub cannot load the detector '.*gone'") as caught:
        detectors.detector(f"keras_hub:{tmp_path / 'gone'}")
    assert "\n" not in str(caught.value)


# --- files of boxes ---------------------------------------------------------------------------------------------------


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_csv(tmp_path):
    """With and without a score (0.5), with a byte order mark, as spreadsheets write it."""
    lines = "image,x,y,w,h,score\na.jpg,1,2,30,40,0.9\nb.png,5,6,7.5,8,\na.jpg,3,4,5,6,1\n"
    for start in ("", "\ufeff"):
        boxes = BoxesFile(written(tmp_path / "boxes.CSV", start + lines))
        np.testing.assert_array_equal(boxes.of("photos/a.jpg")[0], [[1, 2, 30, 40], [3, 4, 5, 6]])
        np.testing.assert_array_equal(boxes.of("a.jpg")[1], [0.9, 1])
        np.testing.assert_array_equal(boxes.of(tmp_path / "b.png")[1], [0.5])
        assert [part.shape for part in boxes.of("c.jpg")] == [(0, 4), (0,)]
    boxes = BoxesFile(written(tmp_path / "boxes.csv", "image,h,w,y,x\na.jpg,40,30,2,1\n"))
    np.testing.assert_array_equal(boxes.of("a.jpg")[0], [[1, 2, 30, 40]])


def test_coco_results(tmp_path):
    """By the number in the name, or by the name; other classes than people are left out."""
    records = [
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9},
        {"image_id": 785, "category_id": 3, "bbox": [9, 9, 9, 9], "score": 0.9},
        {"image_id": 785, "bbox": [3, 4, 5, 6]},
        {"file_name": "cam1\\photo.jpg", "bbox": [5, 6, 7, 8], "score": 0.25},
    ]
    boxes = BoxesFile(written(tmp_path / "boxes.json", records))
    for name in ("000000000785.jpg", "val/785.png"):
        np.testing.assert_array_equal(boxes.of(name)[0], [[1, 2, 30, 40], [3, 4, 5, 6]])
        np.testing.assert_array_equal(boxes.of(name)[1], [0.9, 0.5])
    np.testing.assert_array_equal(boxes.of("photo.jpg")[0], [[5, 6, 7, 8]])


def test_coco_annotations(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "photo.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40]}],
    }
    boxes = BoxesFile(written(tmp_path / "person_keypoints_val.json", content))
    np.testing.assert_array_equal(boxes.of("photo.jpg")[0], [[1, 2, 30, 40]])


def test_images_of_one_name_in_several_folders(tmp_path):
    lines = "image,x,y,w,h\na/1.jpg,1,1,1,1\nb/1.jpg,2,2,2,2\n"
    boxes = BoxesFile(written(tmp_path / "boxes.csv", lines))
    np.testing.assert_array_equal(boxes.of("photos/a/1.jpg")[0], [[1, 1, 1, 1]])
    np.testing.assert_array_equal(boxes.of("b/1.jpg")[0], [[2, 2, 2, 2]])
    assert len(boxes.of("c/1.jpg")[0]) == len(boxes.of("1.jpg")[0]) == 0


HEAD = "image,x,y,w,h,score\na.jpg,1,2,3,4,0.5\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.csv", HEAD + "a.jpg,1,2,wide,4,0.5\n", "record 2 is no box .*'wide'"),
        ("b.csv", HEAD + "a.jpg,1,2\n", "record 2 is no box"),
        ("b.csv", HEAD + "a.jpg,1,2,0,4,0.5\n", r"record 2 is no box .*\[1.0, 2.0, 0.0, 4.0\]"),
        ("b.csv", HEAD + "a.jpg,1,2,nan,4,0.5\n", "record 2 is no box"),
        ("b.csv", HEAD + "a.jpg,1,2,3,4,95\n", "record 2 is no box .*score is 95, which is not from 0 to 1"),
        ("b.csv", "name;x;y;w;h\na.jpg;1;2;3;4\n", "record 1 is no box .*'image'"),
        ("b.json", [{"image_id": 1, "bbox": [1, 2, 3]}], "record 1 is no box"),
        ("b.json", [{"image_id": 1, "bbox": None}], "record 1 is no box"),
        ("b.json", [{"bbox": [1, 2, 3, 4]}], "record 1 is no box .*'image_id'"),
        ("b.json", [7], "record 1 is no box"),
        ("b.json", 7, "record 1 is no box"),
        ("b.json", {"annotations": [{"image_id": 1}]}, "cannot be read"),
        ("b.json", "[{]", "cannot be read"),
        ("b.json", "[" * 100_000, "cannot be read"),
    ],
)
def test_files_that_have_no_boxes(name, content, words, tmp_path):
    with pytest.raises(InputError, match=words) as caught:
        BoxesFile(written(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_of_boxes_that_is_gone(tmp_path):
    with pytest.raises(InputError, match=r"The file of boxes .*gone\.csv is not there\."):
        BoxesFile(tmp_path / "gone.csv")
    (tmp_path / "bytes.csv").write_bytes(b"image,x\n\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.csv cannot be read"):
        BoxesFile(tmp_path / "bytes.csv")


# --- any function -----------------------------------------------------------------------------------------------------


BOX = [10.0, 20.0, 30.0, 40.0]
GIVEN = {
    "pair": (([BOX], [0.7]), [0.7]),
    "pair of arrays": ((np.array([BOX]), np.array([[0.7]])), [0.7]),
    "table": (np.array([[*BOX, 0.7]], np.float32), [0.7]),
    "table without scores": (np.array([BOX]), [0.5]),
    "list": ([[*BOX, 1]], [1.0]),
    "two people": (np.array([[*BOX, 0.7], [*BOX, 0.2]]), [0.7, 0.2]),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_detector_may_return(name):
    given, scores = GIVEN[name]
    boxes, found = found_boxes(given, (100, 90, 3))
    np.testing.assert_array_equal(boxes, [BOX] * len(scores))
    np.testing.assert_allclose(found, scores, atol=1e-7)


@pytest.mark.parametrize("nothing", [[], ([], []), np.zeros((0, 4)), np.zeros((0, 5)), (np.zeros((0, 4)), np.zeros(0))])
def test_a_detector_that_finds_nobody(nothing):
    assert [part.shape for part in found_boxes(nothing, (100, 90, 3))] == [(0, 4), (0,)]


@pytest.mark.parametrize(
    "nonsense",
    [
        None, 7, "boxes", {}, [[1, 2, 3]], [BOX, [1, 2]], ([BOX], [0.7, 0.8]), ([BOX], [70.0]), ([BOX], [np.nan]),
        ([BOX], [-0.1]), ([[1, 2, np.inf, 4]], [0.5]), np.zeros((2, 6)), (np.zeros((2, 6)), np.zeros(3)),
        np.zeros((1, 3, 5)), object(),
    ],
)  # fmt: skip
def test_what_a_detector_may_not_return(nonsense):
    with pytest.raises(InputError, match=r"The detector returned no boxes and scores \(.*\); return \(people, 4\)"):
        found_boxes(nonsense, (100, 90, 3))


def test_boxes_end_at_the_border():
    boxes = [[-5, -5, 20, 20], [80, 90, 20, 20], [88.5, 10, 20, 20], [200, 10, 20, 20], [10, 10, -5, 20]]
    found, scores = found_boxes((boxes, [0.1, 0.2, 0.3, 0.4, 0.5]), (100, 90, 3))
    np.testing.assert_array_equal(found, [[0, 0, 15, 15], [80, 90, 10, 10]])  # others have less than two pixels
    np.testing.assert_array_equal(scores, [0.1, 0.2])


class Sure:
    """A calibration that says 0.8 of the first box, 0.5 of the second, 0 of the third."""

    def __call__(self, heights):
        return heights

    def person_scores(self, heights):
        return np.array([0.8, 0.5, 0.0])[: len(heights)]


def test_a_person_score_counts_both_the_detector_and_the_heatmaps():
    """Bayes: 0.8 and 0.9 are 0.72 / (0.72 + 0.02), 0.5 changes nothing, 0 stays 0, also beside 1."""
    predictor = Predictor(dots.network(), flip_test=False)
    predictor.model.calibration = Sure()
    image = dots.picture((120, 90), [[[30, 50], [60, 90], [40, 20]]])
    boxes = [[10, 10, 60, 90], [20, 10, 60, 90], [30, 10, 60, 90]]

    def scores(*given):
        return predictor.in_boxes(image, boxes, None if not given else np.array(given)).person_scores

    np.testing.assert_allclose(scores(), [0.8, 0.5, 0])
    np.testing.assert_allclose(scores(0.9, 0.9, 0.9), [0.72 / 0.74, 0.9, 0])
    np.testing.assert_allclose(scores(0.5, 0.5, 0.5), [0.8, 0.5, 0])
    np.testing.assert_allclose(scores(0.2, 0.3, 1), [0.16 / (0.16 + 0.16), 0.3, 0])
    np.testing.assert_allclose(scores(0, 1, 0), [0, 1, 0])
    predictor.detector = lambda image: (boxes, [0.2, 0.9, 1.0])
    found = predictor(image)
    np.testing.assert_allclose(found.person_scores, [0.9])  # the boxes are of one person: the likeliest stays
    np.testing.assert_array_equal(found.boxes, [[20, 10, 60, 90]])


def test_people_in_several_boxes():
    """Each once, the likeliest first."""
    truth = np.array([[[30, 50], [60, 90], [40, 20]], [[130, 60], [165, 95], [150, 25.0]]])
    low, high = truth.min(axis=1), truth.max(axis=1)
    boxes = np.concatenate([low - 10, high - low + 20], axis=1)
    given = np.concatenate([boxes, boxes + np.array([2, -1, 0, 0])]), [0.6, 0.7, 0.5, 0.9]
    found = Predictor(dots.network(), flip_test=False, detector=lambda image: given)(dots.picture((120, 200), truth))
    assert len(found) == 2 and (np.diff(found.person_scores) <= 0).all()
    order = np.argsort(found[:, 0, 0])
    assert np.abs(found[order, :, :2] - truth).max() < 4


def test_a_detector_that_fails_is_no_mistake_of_ours():
    """Its own error, with its traceback."""

    def fails(image):
        raise ZeroDivisionError("theirs")

    with pytest.raises(ZeroDivisionError, match="theirs"):
        Predictor(dots.network(), detector=fails)(np.zeros((50, 40, 3), np.uint8))
