"""The file in which `avt tune` leaves its findings, and reading them for a model."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import jax

from avt_jax.errors import first_line
from avt_jax.host.cache import cache_folder
from avt_jax.host.new_files import write_json
from avt_jax.models.kernels import choice, forms
from avt_jax.models.kernels.choice import Kernels

# {pass: {case: form}}, the case in words.
Forms = dict[str, dict[str, str]]


def device_kind() -> str:
    """What the first device calls itself, such as "TPU v5 lite" or "cpu"."""
    return str(jax.devices()[0].device_kind)


def path() -> Path:
    """The file for the device at hand; it need not exist."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", device_kind()).strip("-")
    return cache_folder() / f"kernels-{name}.json"


def told(name: str) -> Kernels:
    """What a model's modules are told, from `config.model.kernels`.

    "auto" brings what was measured on this kind of device, with this version of JAX. A file that is
    of another one, or damaged, is left alone, with a warning.
    """
    if name != choice.AUTO or not path().exists():
        return Kernels(name)
    try:
        found = _read()
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{path()} is not used ({first_line(error)}): run 'avt tune' again, or delete it.",
            stacklevel=2,
        )
        return Kernels(name)
    rows = ((step, case, form) for step, cases in found.items() for case, form in cases.items())
    return Kernels(name, device_kind(), tuple(rows))


def _read() -> Forms:
    """The forms in the file; ValueError where they are not for this device, JAX and version."""
    content = json.loads(path().read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("forms"), dict):
        raise ValueError("it is not a file of 'avt tune'")
    for field, here in (("device_kind", device_kind()), ("jax", jax.__version__)):
        if content.get(field) != here:
            raise ValueError(f"its {field} is {content.get(field)!r}, and here it is {here!r}")
    platform = choice.platform_of(jax.devices()[0])
    for step, cases in content["forms"].items():
        if not isinstance(cases, dict):
            raise ValueError("it is not a file of 'avt tune'")
        known = forms.candidates(step, platform)
        unknown = [form for form in cases.values() if form not in known]
        if unknown:
            raise ValueError(f"it has the form {unknown[0]!r} for {step!r}")
    return dict(content["forms"])


def write(found: Forms) -> Path:
    """Adds to the file for the device at hand, or replaces what cannot be used; returns its path.

    Raises:
      UserError: it cannot be written.
    """
    try:
        forms_by_step = _read()
    except (OSError, ValueError):
        forms_by_step = {}
    for step, cases in found.items():
        forms_by_step[step] = {**forms_by_step.get(step, {}), **cases}
    content = {"device_kind": device_kind(), "jax": jax.__version__, "forms": forms_by_step}
    path().parent.mkdir(parents=True, exist_ok=True)
    write_json(path(), content)
    return path()
