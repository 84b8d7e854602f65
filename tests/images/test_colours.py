import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.colours import as_rgb, bytes_per_pixel
from tests.variants import each

MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "RGBa"]


def picture(mode: str, size: tuple[int, int] = (13, 9)) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(levels)
    if mode in ("I", "F", "I;16"):
        grey = levels[:, :, 0].astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode])
        return Image.fromarray(grey * 257)
    if mode in ("RGBA", "RGBa", "LA"):
        return image.convert(mode)
    if mode == "PA":
        paletted = image.convert("RGB").convert("P").convert("PA")
        paletted.putalpha(image.getchannel("A"))
        return paletted
    if mode == "LAB":
        return Image.merge("LAB", image.convert("RGB").split())
    return image.convert("RGB").convert(mode)


@each("clear", [False, True])
@each("mode", MODES)
def test_bands_are_what_the_whole_is(mode: str, clear: bool) -> None:
    image = picture(mode)
    if clear:
        image.info["transparency"] = {"P": bytes(range(256)), "RGB": (1, 2, 3)}.get(mode, 7)
    whole = as_rgb(image)
    assert whole.mode in ("RGB", "L")
    for pixels in (1, 13, 40, 13 * 8):
        found = as_rgb(image, pixels)
        assert (found.mode, found.size) == (whole.mode, whole.size)
        assert found.tobytes() == whole.tobytes()


def test_the_range_of_floats_is_that_of_the_whole_image() -> None:
    for level in [0.4, 200.0, 60_000.0]:
        levels = np.full((20, 10), 0.2, np.float32)
        levels[-1, -1] = level
        image = Image.fromarray(levels)
        whole = as_rgb(image).tobytes()
        assert as_rgb(image, 10).tobytes() == whole

    levels = np.zeros((20, 10), np.float32)
    levels[-1, -1] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        as_rgb(Image.fromarray(levels), 10)


@each("mode, size", [("1", 1), ("L", 1), ("P", 1), ("I;16", 2), ("LA", 4), ("RGB", 4), ("F", 4)])
def test_pillow_holds_so_many_bytes_of_a_pixel(mode: str, size: int) -> None:
    assert bytes_per_pixel(mode) == size
