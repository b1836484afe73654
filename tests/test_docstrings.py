"""Every public name has an example in its docstring, and the example runs."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from types import ModuleType

import pytest

import instahide

#: Public names outside `instahide.__all__`, by their module; None: all that the module defines.
FURTHER: dict[str, tuple[str, ...] | None] = {
    "instahide.integrations.dataloader.wrap": ("EncodingLoader",),
    "instahide.integrations.lightning.callback": ("InstaHideCallback",),
    "instahide.training.models.blocks": None,
    "instahide.training.models.build": None,
    "instahide.training.models.builtin": None,
    "instahide.training.models.deployment": ("Deployment",),
    "instahide.encryption.encoders.base": ("ImageEncoder",),
    "instahide.encryption.encoders.secret_random": ("SecretRandom",),
    "instahide.encryption.encoders.registry": ("encoder_named", "parse_settings"),
    "instahide.encryption.encoders.table_encoder": ("TableEncoder", "open_encoder"),
    "instahide.encryption.encoders.rivals.block_scrambling": ("BlockScrambling",),
    "instahide.encryption.encoders.rivals.dp_instahide": ("DPInstaHide",),
    "instahide.encryption.encoders.rivals.neuracrypt": ("NeuraCrypt",),
    "instahide.encryption.encoders.rivals.noisy_mixup": ("noisy_mixup",),
    "instahide.training.settings": ("TrainSettings",),
    "instahide.training.trainer": ("Trainer",),
}


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def _further() -> list[tuple[str, str]]:
    return [
        (home, name)
        for home, names in FURTHER.items()
        for name in names or _defined(import_module(home))
    ]


PUBLIC = [
    *(("instahide", name) for name in instahide.__all__ if name != "__version__"),
    *_further(),
]


@pytest.mark.slow
@pytest.mark.parametrize(("home", "name"), PUBLIC)
def test_the_example_of_a_public_name_runs(home: str, name: str) -> None:
    if home.startswith("instahide.integrations.lightning"):
        pytest.importorskip("pytorch_lightning")
    public = getattr(import_module(home), name)
    found = doctest.DocTestFinder(recurse=False).find(public, name)
    assert sum(len(test.examples) for test in found), f"The docstring of {name} has no example."
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    for test in found:
        runner.run(test)
    assert runner.failures == 0
