"""What decoding takes at its peak is never more than it asked for, in any mode and format."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, gc, io, json, sys
import numpy as np
from contextlib import nullcontext
from PIL import Image, features
from bottleneck.images import colours, opening
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.view import View

SIDE = 480
colours._BAND = opening._ROWS = SIDE * SIDE // 16  # as many bands as a large image has
values = dict(resize=256, crop=224, interpolation="bicubic", antialias=True, mean=(0, 0, 0), std=(1, 1, 1))
plain, seen = Preprocessing(**values), Preprocessing(**values, view=View(augmentation="light", seed=0, number=0))
levels = np.random.default_rng(0).integers(0, 256, (SIDE // 10, SIDE // 10, 4), np.uint8)
rgba = Image.fromarray(levels).resize((SIDE, SIDE))
rgb, grey = rgba.convert("RGB"), rgba.convert("L")
deep = np.asarray(grey).astype(np.uint16) * 257
turned = Image.Exif()
turned[0x112] = 6


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


fast = {"compress_level": 1}
floats, palette = Image.fromarray(deep.astype(np.float32) / 65535), rgb.quantize(64)
cases = {
    "JPEG": (encoded, rgb, "JPEG"),
    "JPEG L": (encoded, grey, "JPEG"),
    "JPEG CMYK": (encoded, rgb.convert("CMYK"), "JPEG"),
    "JPEG progressive": (encoded, rgb, "JPEG", dict(progressive=True, subsampling=0)),
    "JPEG CMYK progressive": (encoded, rgb.convert("CMYK"), "JPEG", dict(progressive=True)),
    "JPEG turned": (encoded, rgb, "JPEG", dict(exif=turned)),
    "PNG": (encoded, rgb, "PNG", fast),
    "PNG turned": (encoded, rgb, "PNG", dict(exif=turned, **fast)),
    "PNG L": (encoded, grey, "PNG", fast),
    "PNG LA": (encoded, rgba.convert("LA"), "PNG", fast),
    "PNG RGBA": (encoded, rgba, "PNG", fast),
    "PNG RGBA turned": (encoded, rgba, "PNG", dict(exif=turned, **fast)),
    "PNG 16": (encoded, Image.fromarray(deep), "PNG", fast),
    "PNG P": (encoded, palette, "PNG", fast),
    "PNG P alpha": (encoded, palette, "PNG", dict(transparency=bytes(range(64)), **fast)),
    "PNG RGB key": (encoded, rgb, "PNG", dict(transparency=(1, 2, 3), **fast)),
    "PNG 1": (encoded, rgb.convert("1"), "PNG", fast),
    "PNG animated": (encoded, rgb, "PNG", dict(save_all=True, append_images=[rgb.rotate(90)], **fast)),
    "TIFF 16": (encoded, Image.fromarray(deep), "TIFF"),
    "TIFF F": (encoded, floats, "TIFF"),
    "TIFF I": (encoded, Image.fromarray(deep.astype(np.int32)), "TIFF"),
    "TIFF deflate": (encoded, rgb, "TIFF", dict(compression="tiff_adobe_deflate", strip_size=1 << 30)),
    "TIFF JPEG": (encoded, rgb, "TIFF", dict(compression="jpeg", strip_size=1 << 30)),
    "TIFF fax": (encoded, rgb.convert("1"), "TIFF", dict(compression="group4")),
    "TIFF CMYK": (encoded, rgb.convert("CMYK"), "TIFF"),
    "WEBP": (encoded, rgb, "WEBP", dict(method=0)),
    "WEBP lossless": (encoded, rgb, "WEBP", dict(lossless=True, method=0, quality=0)),
    "WEBP RGBA lossless": (encoded, rgba, "WEBP", dict(lossless=True, method=0, quality=0)),
    "WEBP flat": (encoded, Image.new("RGBA", rgb.size, (9, 200, 30, 255)), "WEBP", dict(lossless=True, method=0)),
    "WEBP animated": (encoded, rgb, "WEBP", dict(save_all=True, append_images=[rgb.rotate(90)], method=0)),
    "GIF": (encoded, palette, "GIF"),
    "GIF alpha": (encoded, palette, "GIF", dict(transparency=0)),
    "GIF animated": (encoded, palette, "GIF", dict(save_all=True, append_images=[palette.rotate(90)])),
    "BMP": (encoded, rgb, "BMP"),
    "PPM": (encoded, rgb, "PPM"),
    "PPM 12 bits": (lambda: b"P5 %d %d 4095 " % grey.size + deep.byteswap().tobytes(),),
    "PPM F": (encoded, floats, "PPM"),
}
if features.check("jpg_2000"):
    for name, image in (("JPEG 2000", rgb), ("JPEG 2000 16", Image.fromarray(deep))):
        cases[name] = (encoded, image, "JPEG2000", dict(irreversible=True, quality_layers=[90]))
if features.check("avif"):
    for name, image in (("AVIF", rgb), ("AVIF RGBA", rgba)):
        cases[name] = (encoded, image, "AVIF", dict(speed=10, subsampling="4:4:4"))


def now(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))


def measured(data, preprocessing):
    asked = []
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = now("VmRSS")
    decode(data, preprocessing, reserve=lambda size: asked.append(size) or nullcontext())
    return sum(asked), now("VmHWM") - before


found = {}
for name, (make, *parts) in cases.items():
    options = parts.pop() if parts and isinstance(parts[-1], dict) else {}
    data = make(*parts, **options)
    if parts and "append_images" not in options:  # what is loaded once is no part of it
        decode(make(parts[0].resize((60, 60)), *parts[1:], **options), plain)
    for way in (plain, seen) if name in ("JPEG", "PNG RGBA turned", "PNG 16") else (plain,):
        found[name if way is plain else name + " seen"] = measured(data, way)
json.dump(found, sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures a process as Linux does, with glibc's allocator")
def test_decoding_takes_at_most_the_memory_it_reserves() -> None:
    # What is freed goes back to the system at once, and counts again when it is taken again.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 30
    for name, (asked, peak) in found.items():
        assert 0 < peak <= asked, name
        assert asked < 45 * 480 * 480, name  # nor much more than any image needs
