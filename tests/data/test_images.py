"""One reader for all: formats, depths, turned photographs, sizes; TensorFlow's pixels are Pillow's and OpenCV's."""

import io
import itertools
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from keras_mrpose.data import image_tensors, images
from keras_mrpose.data.image_tensors import read_image_tensor
from keras_mrpose.data.images import read_image
from keras_mrpose.errors import InputError

HEIGHT, WIDTH = 30, 50
# The EXIF tag's own table: from the stored rows and columns to what a viewer shows.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
GRAPH = tf.function(read_image_tensor, input_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int32)))
READERS = {  # path and annotated size -> pixels
    "eager": read_image,
    "graph": lambda path, size=(0, 0): GRAPH(tf.constant(str(path)), tf.constant(size)).numpy(),
}


@pytest.fixture(params=READERS)
def read(request):
    return READERS[request.param]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def saved(path, array, orientation=None, **options):
    """The file of an array or image, with EXIF data if there is an orientation."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    (Image.fromarray(array) if isinstance(array, np.ndarray) else array).save(path, **options)
    return path


def is_plain(path, size=(0, 0)):
    return bool(image_tensors._is_plain(tf.constant(path.read_bytes()), tf.constant(size))[0])


# --- formats ------------------------------------------------------------------------------------------------------

LOSSLESS = {
    "png": {}, "bmp": {}, "tif": {}, "webp": {"lossless": True}, "ppm": {}, "jp2": {}, "dib": {},
    "lzw.tif": {"compression": "tiff_lzw"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_give_the_very_pixels(suffix, noise, read, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", noise, **LOSSLESS[suffix])
    image = read(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, noise)
    np.testing.assert_array_equal(read(path, (WIDTH, HEIGHT)), noise)


def test_first_frame_of_several(noise, read, tmp_path):
    few = noise // 128 * 127  # eight colours, exactly as a palette has them
    for suffix in ("gif", "tif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        frames = [Image.fromarray(255 - few), Image.fromarray(few // 2)]
        path = saved(tmp_path / f"a.{suffix}", few, save_all=True, append_images=frames, **options)
        np.testing.assert_array_equal(read(path), few, err_msg=suffix)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(noise, read, tmp_path):
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    image = read(saved(tmp_path / "a.avif", smooth, quality=95))
    assert image.shape == noise.shape and np.abs(image.astype(int) - smooth).mean() < 3


def test_heic(noise, read, tmp_path):
    """Or a sentence that says what to install."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / "a.heic", quality=95)
    image = read(tmp_path / "a.heic")
    assert image.shape == noise.shape and np.abs(image.astype(int) - smooth).mean() < 3


def test_heic_without_its_plug_in(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_formats", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic" + bytes(40))
    with pytest.raises(InputError, match=r"a\.heic is a HEIC file; install .*\[heic\]"):
        read_image(tmp_path / "a.heic")


# --- modes and depths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_modes_become_rgb(mode, suffix, noise, read, tmp_path):
    """Worked out from the stored numbers; transparency is dropped and leaves the colours."""
    alpha = noise[..., 2:]
    stored = {
        "1": noise[..., 0] > 127,
        "L": noise[..., 0],
        "P": noise[..., 0] % 5,
        "RGB": noise,
        "LA": np.concatenate([noise[..., :1], alpha], axis=2),
        "RGBA": np.concatenate([noise, alpha], axis=2),
    }[mode]
    palette = np.array([[0, 0, 0], [250, 3, 9], [7, 200, 100], [1, 2, 3], [255, 255, 255]], np.uint8)
    wanted = {
        "1": lambda: np.repeat(np.uint8(stored)[..., None] * 255, 3, axis=2),
        "L": lambda: np.repeat(stored[..., None], 3, axis=2),
        "P": lambda: palette[stored],
        "RGB": lambda: stored,
        "LA": lambda: np.repeat(stored[..., :1], 3, axis=2),
        "RGBA": lambda: stored[..., :3],
    }[mode]()
    image = Image.fromarray(stored)
    if mode == "P":
        image.putpalette(palette.tobytes())
    assert image.mode == mode
    np.testing.assert_array_equal(read(saved(tmp_path / f"a.{suffix}", image)), wanted)


def test_palettes_with_transparency(noise, read, tmp_path):
    """As numbers for each colour or one colour: Pillow warns of the former, and warnings are errors here."""
    image = Image.fromarray(noise[..., 0] % 3)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    wanted = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[noise[..., 0] % 3]
    for name, transparency in (("some.png", b"\x00\x80\xff"), ("one.png", 1), ("one.gif", 1)):
        path = saved(tmp_path / name, image, transparency=transparency)
        np.testing.assert_array_equal(read(path), wanted, err_msg=name)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_gray_of_16_bits_is_its_high_byte(suffix, read, tmp_path):
    """All levels: within one of the exact scaling, and exactly the 8 bits that it was made from, by 257 or by 256."""
    levels = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    image = read(saved(tmp_path / f"a.{suffix}", levels))
    np.testing.assert_array_equal(image, np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2))
    assert np.abs(image[..., 0] - levels / 257).max() <= 1
    eight = np.arange(256, dtype=np.uint16).reshape(8, 32)
    for factor in (256, 257):
        np.testing.assert_array_equal(read(saved(tmp_path / f"a.{suffix}", eight * factor))[..., 0], eight)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colour_of_16_bits(suffix, noise, read, tmp_path):
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), noise[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), noise)


def tiff(levels, *, bits=16, photometric=1, order=">"):
    """A TIFF file of one strip, written by hand: byte order, bits and meaning of 0 that no library here writes."""
    height, width = levels.shape
    if bits == 12:
        digits = "".join(f"{level:03x}" for level in levels.ravel())
        pixels = bytes.fromhex(digits)
    else:
        pixels = levels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    return start + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["big endian", "little endian", "12 bits", "white is 0"])
def test_tiff_files_of_cameras_and_scanners(kind, read, tmp_path):
    eight = np.arange(240, dtype=np.uint16).reshape(12, 20)
    content = {
        "big endian": lambda: tiff(eight * 257),
        "little endian": lambda: tiff(eight * 257, order="<"),
        "12 bits": lambda: tiff(eight * 16 + 5, bits=12, order="<"),
        "white is 0": lambda: tiff(65535 - eight * 257, photometric=0, order="<"),
    }[kind]()
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.repeat(eight[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_range_are_refused(kind, noise, tmp_path):
    path = saved(tmp_path / "a.tif", noise[..., 0].astype(kind))
    with pytest.raises(InputError, match=r"a\.tif cannot be read \(it has 32 bits a pixel .*save it with 8 or 16\)"):
        read_image(path)


# --- JPEG ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpeg_is_the_same_by_tensorflow_pillow_and_opencv(mode, options, noise, read, tmp_path):
    smooth = cv2.GaussianBlur(noise, (0, 0), 1)
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth).convert(mode), **options)
    assert is_plain(path) and is_plain(path, (WIDTH, HEIGHT))
    image = read(path)
    np.testing.assert_array_equal(image, cv2.imread(str(path))[..., ::-1])
    np.testing.assert_array_equal(image, images.decode_with_header(path.read_bytes())[0])


def test_photographs_are_the_same_by_both(shared):
    for path in sorted((shared / "data" / "lspet" / "images").glob("*.jpg"))[:20]:
        assert is_plain(path)
        np.testing.assert_array_equal(read_image(path), images.decode_with_header(path.read_bytes())[0])


@tf.function
def part_of(path, low, high, level):
    return image_tensors.open_image(path).part(low, high, level)


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "progressive", "gray", "png"])
def test_a_part_is_the_same_pixels_as_in_the_whole(kind, tmp_path):
    """Noise, so that no neighbour stands for another; also where libjpeg begins and ends in the middle of a block."""
    rng = np.random.default_rng(0)
    options = {"progressive": {"progressive": True}, "gray": {}, "png": {}}.get(kind, {"subsampling": kind})
    picture = Image.fromarray(rng.integers(0, 256, (75, 117, 3)).astype(np.uint8))
    suffix = "png" if kind == "png" else "jpg"
    path = saved(tmp_path / f"a.{suffix}", picture.convert("L") if kind == "gray" else picture, **options)
    whole = read_image(path)
    for _ in range(60):
        low = rng.integers((117, 75))
        high = rng.integers(low, (117, 75)) + 1
        part = part_of(tf.constant(str(path)), *tf.constant([low, high], tf.int32), tf.constant(0))
        np.testing.assert_array_equal(part, whole[low[1] : high[1], low[0] : high[0]], err_msg=f"{low} {high}")


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_reduced_part_holds_means(level, tmp_path):
    """Sides are rounded up; a pixel is the mean of those it stands for, to what 8 bits and JPEG's tables round off."""
    rows, columns = np.mgrid[:75, :117]
    ramp = np.stack([2 * columns, 3 * rows, columns + rows], axis=-1).astype(np.uint8)
    path, ratio = saved(tmp_path / "a.jpg", ramp, quality=100, subsampling=0), 2**level
    low, high = np.array([2, 1]), -(-np.array([117, 75]) // ratio)
    part = part_of(tf.constant(str(path)), *tf.constant([low, high], tf.int32), tf.constant(level)).numpy()
    assert part.shape == (*(high - low)[::-1], 3)
    y, x = np.mgrid[low[1] : 75 // ratio, low[0] : 117 // ratio] * ratio + (ratio - 1) / 2  # those that are whole
    inner = part[: y.shape[0], : y.shape[1]]
    np.testing.assert_allclose(inner, np.stack([2 * x, 3 * y, x + y], axis=-1), atol=2)


def test_a_cut_file_is_refused_in_the_part_before_the_cut_too(tmp_path):
    whole = saved(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (99, 99, 3)).astype(np.uint8))
    content = whole.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 3 // 4])
    (tmp_path / "more.jpg").write_bytes(content + b"what a camera appends")
    corners = tf.constant([[0, 0], [9, 9]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG"):
        part_of(tf.constant(str(tmp_path / "cut.jpg")), *corners, tf.constant(0))
    part = part_of(tf.constant(str(tmp_path / "more.jpg")), *corners, tf.constant(0))
    np.testing.assert_array_equal(part, read_image(whole)[:9, :9])


def test_printed_colours(noise, read, tmp_path):
    """CMYK: paper minus ink, the same everywhere, though TensorFlow could not read it."""
    ink = Image.merge("CMYK", [Image.new("L", (24, 16), value) for value in (200, 100, 50, 0)])
    path = saved(tmp_path / "a.jpg", ink, quality=100)
    assert not is_plain(path)
    assert np.abs(read(path).astype(int) - (55, 155, 205)).max() <= 2


# --- turned -------------------------------------------------------------------------------------------------------

TURNED = {"jpg": {}, "png": {}, "webp": {"lossless": True}, "tif": {}}


def stored_pixels(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", TURNED)
def test_the_annotated_size_says_how_to_read(suffix, orientation, noise, read, tmp_path):
    """Nobody annotated: as viewers show it. Annotated: in the way that has this size, turned if both have."""
    plain = saved(tmp_path / f"plain.{suffix}", noise, **TURNED[suffix])
    stored = stored_pixels(plain)
    path = saved(tmp_path / f"a.{suffix}", noise, orientation, **TURNED[suffix])
    shown = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(read(path), shown)
    np.testing.assert_array_equal(read(path, shown.shape[1::-1]), shown)
    if orientation > 4:
        np.testing.assert_array_equal(read(path, (WIDTH, HEIGHT)), stored)
    else:
        with pytest.raises((InputError, tf.errors.OpError), match="has 50x30 pixels, its annotations say 30x50"):
            read(path, (HEIGHT, WIDTH))
    if suffix in ("jpg", "png"):
        assert is_plain(path) == (orientation == 1)


def test_exif_in_other_byte_order_and_with_odd_values(noise, read, tmp_path):
    stored = stored_pixels(saved(tmp_path / "a.jpg", noise))
    for order, (letter, kind) in itertools.product("<>", {"H": 3, "I": 4}.items()):  # 16 and 32 bits
        for orientation in (0, 1, 6, 9):
            value = struct.pack(order + letter, orientation).ljust(4, b"\0")
            entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
            start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
            exif = b"Exif\0\0" + start + struct.pack(f"{order}H", 1) + entry + bytes(4)
            Image.fromarray(noise).save(tmp_path / "a.jpg", exif=exif)
            wanted = np.rot90(stored, -1) if orientation == 6 else stored
            np.testing.assert_array_equal(read(tmp_path / "a.jpg"), wanted, err_msg=f"{order}{letter} {orientation}")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # which Pillow says
def test_damaged_exif_turns_nothing(noise, read, tmp_path):
    Image.fromarray(noise).save(tmp_path / "plain.jpg")
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff\x01\x12\0\3\0\0\0\1\0\6")
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), stored_pixels(tmp_path / "plain.jpg"))


def test_what_the_size_does_not_tell_is_said_once(noise, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_tensors, "_either_way", itertools.count())
    square, read = noise[:, :HEIGHT], READERS["graph"]
    clear = saved(tmp_path / "clear.jpg", noise, 6)
    read(clear, (HEIGHT, WIDTH)), read(clear, (WIDTH, HEIGHT))
    read_image(saved(tmp_path / "alone.jpg", square, 6))  # nobody annotated it
    assert not caplog.records
    for number in range(3):
        read(saved(tmp_path / f"square{number}.jpg", square, 6), (HEIGHT, HEIGHT))
    (record,) = caplog.records
    assert "square0.jpg is turned by EXIF (orientation 6)" in record.getMessage() and record.levelname == "WARNING"


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT - 1), (HEIGHT, WIDTH), (2 * WIDTH, 2 * HEIGHT)])
def test_another_size_never_passes(suffix, size, noise, read, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", noise)
    message = rf"a\.{suffix} has 50x30 pixels, its annotations say {size[0]}x{size[1]}; get the one"
    with pytest.raises((InputError, tf.errors.OpError), match=message):
        read(path, size)


def test_another_size_is_seen_before_anything_is_decoded(noise, tmp_path):
    """Of files whose pixels are not there."""
    for suffix in ("jpg", "png", "bmp", "tif", "webp"):
        path = saved(tmp_path / f"a.{suffix}", noise, **({"compression": "tiff_lzw"} if suffix == "tif" else {}))
        if suffix not in ("tif", "webp"):  # which have their header behind the pixels, or in one piece with them
            path.write_bytes(path.read_bytes()[: {"jpg": 700, "png": 60, "bmp": 60}[suffix]])
        with pytest.raises(InputError, match="has 50x30 pixels, its annotations say 51x30"):
            read_image(path, (51, 30))


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(0, 0), (40000, 40000)])
def test_images_of_a_billion_pixels_are_not_decoded(size, read, noise, tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(40000, 40000))
    jpeg = saved(tmp_path / "a.jpg", noise).read_bytes()
    assert jpeg.count(struct.pack(">HH", HEIGHT, WIDTH)) == 1
    (tmp_path / "a.jpg").write_bytes(jpeg.replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 40000, 40000)))
    for name in ("a.png", "a.jpg"):
        with pytest.raises((InputError, tf.errors.OpError), match=rf"{name} has more than 178956970 pixels; make it"):
            read(tmp_path / name, size)


def test_a_limit_of_its_own(noise, read, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises((InputError, tf.errors.OpError), match="has 50x30 pixels, more than 1499; make it smaller"):
        read(saved(tmp_path / "a.bmp", noise))


# --- wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
def test_cut_files_are_refused_by_both_alike(suffix, noise, tmp_path):
    whole = saved(tmp_path / f"whole.{suffix}", noise).read_bytes()
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 12)):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole[:length])
        try:
            image = read_image(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"The image {path} cannot be read (") and "\n" not in str(error)
            with pytest.raises(tf.errors.OpError):
                READERS["graph"](path)
        else:
            np.testing.assert_array_equal(READERS["graph"](path), image)
    assert refused > 9


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.jpg").touch()
    wrong = {
        "gone.jpg": "is not there",
        "page.jpg": "it is no image of a known kind",
        "empty.jpg": "it is empty",
        "": "cannot be read",
    }
    for name, words in wrong.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


ENDLESS = """
import sys
import tensorflow as tf
from keras_mrpose.data import image_tensors as images

data = tf.data.Dataset.range(10**9).map(lambda _: images.read_image_tensor(tf.constant(sys.argv[1])), 4)
class Cycle: pass
cycle = Cycle()
cycle.self, cycle.iterator = cycle, iter(data.batch(16).prefetch(2))
print(next(cycle.iterator).shape[0])
"""


@pytest.mark.slow
def test_a_process_ends_while_its_pipeline_reads_by_pillow(noise, tmp_path):
    path = saved(tmp_path / "a.webp", np.tile(noise, (30, 25, 1)), lossless=True)
    done = subprocess.run([sys.executable, "-c", ENDLESS, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "16\n")
