import warnings

import pytest
from PIL import Image

from bottleneck.images.pixel_limit import raised_pixel_limit


def test_the_largest_limit_counts_until_the_caller_s_is_restored(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with raised_pixel_limit(10):
        assert Image.MAX_IMAGE_PIXELS == 1000, "a limit is never lowered"
        with raised_pixel_limit(5000):
            assert Image.MAX_IMAGE_PIXELS == 5000
        assert Image.MAX_IMAGE_PIXELS == 1000
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_no_limit_stays_none(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    with raised_pixel_limit(10):
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.filterwarnings("error")
def test_pillow_warns_of_large_images_only_outside():
    def warn() -> None:
        warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)

    with raised_pixel_limit(10):
        warn()
    with pytest.raises(Image.DecompressionBombWarning):
        warn()
