"""A library call leaves every setting of the process as it was."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Other packages are imported first: what they change on import is theirs. They must not report anything.
SCRIPT = """
import faulthandler, gc, locale, logging, multiprocessing, os, random, signal, socket, sys, threading, warnings
from pathlib import Path

found = []
sys.addaudithook(lambda event, arguments: found.append(arguments[1]) if event == "ctypes.dlsym" else None)

import h5py, huggingface_hub.constants, matplotlib, numpy, PIL.Image, PIL.ImageFile, sklearn, threadpoolctl, torch
import safetensors.torch, sklearn.linear_model, sklearn.model_selection, sklearn.svm, timm, torchvision
import torch._dynamo, torch._inductor.config, torch.utils.flop_counter
os.environ["CI"] = "true"

try:
    import resource
except ImportError:
    resource = None

def loggers():
    names = ["PIL", "h5py", "huggingface_hub", "matplotlib", "openvino", "openvino.frontend.pytorch", "timm", "torch"]
    return {name: (log.level, log.disabled, list(log.handlers), list(log.filters), log.propagate)
            for name in ["root", *names] for log in [logging.getLogger(None if name == "root" else name)]}

def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

def snapshot():
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    config = h5py.h5.get_config()
    return {
        "pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, PIL.ImageFile.MAXBLOCK),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "matmul": (cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
        "attention": (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.mem_efficient_sdp_enabled(),
                      torch.backends.mha.get_fastpath_enabled()),
        "torch": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
                  torch.get_default_device(), torch.are_deterministic_algorithms_enabled(),
                  torch.multiprocessing.get_sharing_strategy(), torch.hub.get_dir()),
        "random numbers": (torch.get_rng_state().tolist(), random.getstate(), repr(numpy.random.get_state())),
        "blas": [(each["filepath"], each["num_threads"]) for each in threadpoolctl.threadpool_info()],
        "numpy": (numpy.geterr(), numpy.get_printoptions()),
        "sklearn": sklearn.get_config(),
        "h5py": {name: getattr(config, name) for name in dir(config) if not name.startswith("_")},
        "hub": huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
        "matplotlib": dict(matplotlib.rcParams),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug(), list(gc.callbacks)),
        "warnings": (list(warnings.filters), warnings.showwarning, warnings.formatwarning),
        "logging": (logging.root.manager.disable, logging.getLoggerClass(), loggers()),
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": (dict(os.environ), os.getcwd(), umask()),
        "signals": {name: signal.getsignal(name) for name in signal.valid_signals()},
        "faulthandler": faulthandler.is_enabled(),
        "socket": socket.getdefaulttimeout(),
        "limits": resource and [resource.getrlimit(getattr(resource, name)) for name in dir(resource)
                                if name.startswith("RLIMIT_")],
        "affinity": hasattr(os, "sched_getaffinity") and os.sched_getaffinity(0),
        "threads": (threading.active_count(), threading.stack_size(), threading.excepthook),
        "processes": multiprocessing.get_start_method(allow_none=True),
        "imports": (list(sys.meta_path), list(sys.path_hooks), list(sys.path)),
        "sys": (sys.getrecursionlimit(), sys.getswitchinterval(), sys.excepthook, sys.unraisablehook, sys.displayhook,
                sys.stdin, sys.stdout, sys.stderr, sys.dont_write_bytecode, sys.gettrace(), sys.getprofile()),
        "malloc": "mallopt" in found,
    }

import bottleneck
bottleneck.__all__

before = snapshot()

def unchanged(call):
    now = snapshot()
    assert now == before, (call, [name for name, value in now.items() if value != before[name]])

images = Path(sys.argv[1])
folders = {"cache": images.parent / "cache", "runs": images.parent / "runs"}
small = {"resize": 64, "crop": 64, "max_pixels": 10**9}
bottleneck.extract(images, engine="torch", **small, **folders)
unchanged("extract by torch")
bottleneck.fit(images, head="svm", kernel="rbf", **folders)
bottleneck.fit(images, head="softmax", **folders)
unchanged("fit")
bottleneck.predict(images, **folders)
bottleneck.describe("resnet18")
unchanged("predict")
if "openvino" in sys.argv[2:]:
    import openvino.frontend.pytorch.ts_decoder
    before = snapshot()
    bottleneck.extract(images, engine="openvino", cache=images.parent / "other", **small)
    unchanged("extract by OpenVINO")
print("unchanged")
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of two classes of 12 small images."""
    random = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(level - 40, level + 40, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_extract_fit_and_predict_change_no_setting_of_the_process(images):
    engines = ["openvino"] if find_spec("openvino") else []
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(images), *engines]
    done = subprocess.run(command, capture_output=True, text=True, cwd=images.parent)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "unchanged"
