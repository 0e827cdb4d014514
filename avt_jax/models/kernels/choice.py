"""Which form of an operation runs: by platform, by shape, by name, or as measured.

`config.model.kernels` is one of KERNELS:

- "auto": on each platform that platform's rules, in one program: which of them is lowered is known
  when the program is, so one that is compiled ahead of time for a TPU holds the TPU's forms. Where
  `avt tune` has measured the device at hand, what it found goes before its platform's rules.
- "cpu", "gpu", "tpu": that platform's rules everywhere, but for forms that only it has.
- "xla": XLA's own forms everywhere: its grouped convolution, attention as plain products.
- "tokamax": attention by the package of that name, the rest as "auto".

The rules look at shapes without the batch: a program may be traced with a batch of unknown size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from avt_jax.errors import UserError, nearest

AUTO = "auto"
PLATFORMS = ("cpu", "gpu", "tpu")
XLA = "xla"
TOKAMAX = "tokamax"
KERNELS = (AUTO, *PLATFORMS, XLA, TOKAMAX)
KERNELS_DOC = (
    "forms of convolution and attention: auto: by the device, and by what 'avt tune' has found on "
    "it; cpu, gpu, tpu: those of that platform everywhere; xla: XLA's own; tokamax: attention by "
    "that package"
)

Array = jax.Array | jax.ShapeDtypeStruct

# The matrix unit of a TPU multiplies by 128 x 128 weights at a time.
_MATRIX_UNIT = 128


@dataclass(frozen=True)
class Conv:
    """A case of the depthwise convolution, whatever the batch.

    Attributes:
      size: (t, h, w, c) of the input.
      kernel: (kt, kh, kw).
      dtype: of the input.
    """

    size: tuple[int, int, int, int]
    kernel: tuple[int, int, int]
    dtype: str

    @classmethod
    def of(cls, x_bthwc: Array, kernel_shape: tuple[int, ...]) -> Conv:
        """The case of an input and a kernel [kt, kh, kw, c]."""
        _, t, h, w, c = x_bthwc.shape
        kt, kh, kw, _ = kernel_shape
        return cls((t, h, w, c), (kt, kh, kw), str(x_bthwc.dtype))

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.size))} {'x'.join(map(str, self.kernel))} {self.dtype}"


@dataclass(frozen=True)
class Attend:
    """A case of attention, whatever the batch.

    Attributes:
      n: queries.
      m: keys.
      heads: number of heads.
      width: of a head.
      dtype: of the queries.
    """

    n: int
    m: int
    heads: int
    width: int
    dtype: str

    @classmethod
    def of(cls, query_bnhd: Array, key_bmhd: Array) -> Attend:
        """The case of queries and keys."""
        _, n, heads, width = query_bnhd.shape
        return cls(n, key_bmhd.shape[1], heads, width, str(query_bnhd.dtype))

    @property
    def is_half(self) -> bool:
        """Whether its numbers have 16 bits."""
        return self.dtype in ("bfloat16", "float16")

    def __str__(self) -> str:
        return f"{self.n}x{self.m} {self.heads}x{self.width} {self.dtype}"


def _conv_tpu(case: Conv) -> str:
    # Up to its width the matrix unit does all channels' dense kernel in the time of one channel;
    # beyond it the zeros cost whole passes, and XLA's grouped form is faster. Estimated for a v5e.
    # With half the channels two columns go at once: worth the copies for a wide kernel alone.
    channels = case.size[-1]
    if channels > _MATRIX_UNIT:
        return "grouped"
    return "packed" if 2 * channels <= _MATRIX_UNIT and case.kernel[2] > 3 else "dense"


def _conv_gpu(case: Conv) -> str:
    # Measured on an H200 in bfloat16: 1.0 to 3.5 times as fast as the next best form.
    return "triton" if _since_ampere() else "shifted"


def _kernel_gradient_gpu(case: Conv) -> str:
    # 1.7 to 6 times as fast as the next best form, which is XLA's grouped convolution but for few
    # taps and channels; a loop over taps reads both arrays 27 or 125 times.
    return "triton" if _since_ampere() else "grouped"


# Logits of a head; more than these do not stay in a CPU's caches beside those of other heads.
_HEAD_LOGITS = 2**15
# On a TPU fewer than these are cheap to write, and padding to whole blocks is not.
_FLASH_LOGITS = 2**16


def _attention_gpu(case: Attend) -> str:
    # cuDNN's own conditions, the last one of its gradient.
    can = case.is_half and case.width % 8 == 0 and case.width <= 128
    can = can and case.n % 2 == case.m % 2 == 0
    return "cudnn" if can and _since_ampere() else "plain"


def _since_ampere() -> bool:
    """Whether an NVIDIA GPU is at hand that cuDNN's flash attention and Triton know.

    It is found when a program is traced: one for a GPU that is not here has neither.
    """
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    return major.isdigit() and int(major) >= 8


def _attention_tpu(case: Attend) -> str:
    whole = case.width % 64 == 0 and min(case.n, case.m) >= 128
    return "splash" if whole and case.is_half and case.n * case.m >= _FLASH_LOGITS else "plain"


# {pass: {"cpu", "gpu", "tpu" or "xla": the form's name for a case}}.
RULES: dict[str, dict[str, Callable[[Any], str]]] = {
    "depthwise forward": {
        "cpu": lambda case: "shifted",
        "gpu": _conv_gpu,
        "tpu": _conv_tpu,
        "xla": lambda case: "grouped",
    },
    "depthwise input gradient": {
        "cpu": lambda case: "shifted",
        "gpu": _conv_gpu,
        "tpu": _conv_tpu,
        "xla": lambda case: "grouped",
    },
    "depthwise kernel gradient": {
        "cpu": lambda case: "rows",
        "gpu": _kernel_gradient_gpu,
        "tpu": lambda case: "grouped",
        "xla": lambda case: "grouped",
    },
    "attention": {
        "cpu": lambda case: "heads" if case.n * case.m > _HEAD_LOGITS else "plain",
        "gpu": _attention_gpu,
        "tpu": _attention_tpu,
        "xla": lambda case: "plain",
        "tokamax": lambda case: "tokamax",
    },
}

# {form: the only platform that has it}.
ONLY = {"cudnn": "gpu", "splash": "tpu", "triton": "gpu"}

# (platform, form) for each platform.
Chosen = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Kernels:
    """What a model's modules are told about the forms; hashable, so it can be a static attribute.

    Attributes:
      name: of KERNELS.
      device_kind: what `measured` was found on, see `jax.Device.device_kind`.
      measured: ((pass, case, form), ...), from `avt tune`; for "auto" alone.
    """

    name: str = AUTO
    device_kind: str = ""
    measured: tuple[tuple[str, str, str], ...] = ()


def check(name: str) -> str:
    """The name of a choice, if there is one.

    Raises:
      UserError: there is none, names the nearest; or it needs a package that is not installed.
    """
    if name not in KERNELS:
        raise UserError(
            f"kernels {name!r} is not known{nearest(name, KERNELS)}; give one of "
            f"{', '.join(KERNELS)}."
        )
    if name == TOKAMAX and importlib.util.find_spec(TOKAMAX) is None:
        raise UserError(
            f"kernels {name!r} needs the package tokamax; pip install tokamax, or give {AUTO!r}."
        )
    return name


def choose(step: str, case: Conv | Attend, kernels: str | Kernels = AUTO) -> Chosen:
    """The form of each platform.

    Args:
      step: of RULES, such as "depthwise forward".
      case: the shapes.
      kernels: a name of KERNELS, or that with what was measured.

    Returns:
      ((platform, name of the form), ...), for `by_platform`.

    Raises:
      UserError: an unknown name.
    """
    told = Kernels(kernels) if isinstance(kernels, str) else kernels
    name, rules = check(told.name), RULES[step]
    chosen = {platform: rules[platform](case) for platform in PLATFORMS}
    if name in rules:
        form = rules[name](case)
        where = [platform for platform in PLATFORMS if ONLY.get(form, platform) == platform]
        return tuple((chosen | dict.fromkeys(where, form)).items())
    here = _platform_at_hand(told.device_kind) if told.measured else None
    for measured_step, measured_case, form in told.measured:
        if here and (measured_step, measured_case) == (step, str(case)):
            chosen[here] = form
    return tuple(chosen.items())


def _platform_at_hand(device_kind: str) -> str | None:
    """The platform of this machine's devices if they are of a kind, else None.

    A program that is compiled ahead of time for another device than the one at hand, under a mesh
    of such devices, is not for the device that was measured.
    """
    device = jax.devices()[0]
    meant = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    kind = getattr(meant, "device_kind", device.device_kind)
    if device_kind != device.device_kind or kind != device_kind:
        return None
    return platform_of(device)


def platform_of(device: jax.Device) -> str:
    """The platform of PLATFORMS that a device belongs to."""
    return device.platform if device.platform in PLATFORMS else "gpu"


def by_platform(chosen: Chosen, forms: Mapping[str, Callable[..., Any]], *args: Any) -> Any:
    """Runs the form of the platform that the program is lowered for.

    Args:
      chosen: from `choose`.
      forms: {name: form}.
      *args: of the form.
    """
    names = dict(chosen)
    if len(set(names.values())) == 1:
        return forms[names["cpu"]](*args)
    return lax.platform_dependent(
        *args, cpu=forms[names["cpu"]], tpu=forms[names["tpu"]], default=forms[names["gpu"]]
    )
