import subprocess
import sys
import warnings

import pytest
from PIL import Image

from bottleneck.images.pixel_limit import raised_pixel_limit

SCRIPT = """
from PIL import Image
from bottleneck.images.pixel_limit import raised_pixel_limit

Image.MAX_IMAGE_PIXELS = 1000
found = []
with raised_pixel_limit(10):
    found.append(Image.MAX_IMAGE_PIXELS)
    with raised_pixel_limit(5000):
        found.append(Image.MAX_IMAGE_PIXELS)
    found.append(Image.MAX_IMAGE_PIXELS)
found.append(Image.MAX_IMAGE_PIXELS)
Image.MAX_IMAGE_PIXELS = None
with raised_pixel_limit(10):
    found.append(Image.MAX_IMAGE_PIXELS)
print([*found, Image.MAX_IMAGE_PIXELS])
"""


def test_the_limit_of_the_caller_is_raised_never_lowered_and_restored() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "[1000, 5000, 1000, 1000, None, None]\n"


@pytest.mark.filterwarnings("error")
def test_pillow_warns_of_large_images_only_outside() -> None:
    def warn() -> None:
        warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)

    with raised_pixel_limit(10):
        warn()
    with pytest.raises(Image.DecompressionBombWarning):
        warn()
