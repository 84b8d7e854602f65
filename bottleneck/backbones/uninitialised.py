"""Networks on the ``meta`` device, without the initialisers of their weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_INITIALISERS = frozenset({
    *(init.normal_, init.uniform_, init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_),
    *(Tensor.erfinv_, Tensor.clamp_),  # steps of trunc_normal_
})  # fmt: skip


class Uninitialised(TorchFunctionMode):
    """While active in a thread, skip the initialisers of tensors on the ``meta`` device.

    Those tensors have no values, but torch computes the shapes of each initialiser, which takes most of the time of
    building a network there. Other tensors are initialised: torch draws some again until all are within bounds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Return the tensor of a skipped initialiser, and call any other function."""
        kwargs = kwargs or {}
        if func in _INITIALISERS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
