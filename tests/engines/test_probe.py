"""The images that engines are tried on: the same each time, and like photographs."""

import hashlib

import numpy as np

from bottleneck.engines.probe import PROBES, probe_images
from tests.variants import each


def test_they_are_the_same_in_every_process():
    # Where another NumPy rounds otherwise, single pixels differ: a mean of each image does not.
    first = probe_images(64, 64)
    second = probe_images(64, 64)

    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    assert first.mean(axis=(1, 2, 3)).round().tolist() == [97, 112, 157, 118]


@each("shape", [(224, 224), (28, 28), (299, 299), (12, 33), (1, 8)])
def test_any_size_will_do(shape):
    images = probe_images(*shape)

    assert (images.shape, images.dtype) == ((PROBES, *shape, 3), np.uint8)


def test_they_differ_and_fill_the_range():
    images = probe_images(224, 224)

    assert len({image.tobytes() for image in images}) == PROBES
    assert all(image.std() > 20 for image in images)
    assert images.min() < 20
    assert images.max() > 235


def test_their_amplitude_falls_as_one_over_f():
    grey = probe_images(256, 256).mean(axis=3)
    amplitude = np.abs(np.fft.rfft2(grey)).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    middle = (frequency > 0.02) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[middle]), np.log(amplitude[middle]), 1)[0]

    assert -1.1 < slope < -0.8, "white noise has 0"


def test_their_colours_are_correlated():
    images = probe_images(128, 128).reshape(PROBES, -1, 3).astype(float)

    for image in images:
        assert np.corrcoef(image.T)[np.triu_indices(3, 1)].min() > 0.5
