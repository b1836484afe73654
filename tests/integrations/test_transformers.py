"""The Trainer of Hugging Face: encodings reach a network, and soft labels a cross-entropy."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instahide import InstaHideError
from tests.integrations.matrix import COUNT, PIXELS, Items, check, encoded, require_encodings

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


class Examples(Items):
    """Items as an image processor gives them."""

    def __getitem__(self, index: int) -> Any:
        return {"pixel_values": PIXELS[index], "labels": index}


def transformer() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=8, patch_size=4, num_channels=3, num_labels=COUNT,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def page_loss() -> Any:
    """The loss that the page gives."""
    page = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
    found = re.search(r"^def soft_cross_entropy.*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"torch": torch}
    exec(found[0], names)  # noqa: S102
    return names["soft_cross_entropy"]


cross_entropy = page_loss()


def trained(
    folder: Path, resume: str | None = None, callbacks: Any = None, **more: Any
) -> tuple[Any, list[Any]]:
    """A trainer after seven steps of four an epoch, and the batches that its network saw."""
    from transformers import Trainer, TrainingArguments

    seen: list[Any] = []

    class Encoding(Trainer):
        def get_train_dataloader(self) -> Any:
            return encoded(super().get_train_dataloader())

        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            seen.append((inputs["pixel_values"], inputs["labels"]))
            require_encodings(*seen[-1])
            return super().training_step(model, inputs, *rest)

    arguments = TrainingArguments(
        str(folder), max_steps=7, per_device_train_batch_size=6, use_cpu=True, report_to=[],
        remove_unused_columns=False, save_strategy="steps", save_steps=5, disable_tqdm=True,
        logging_steps=1, **more,
    )  # fmt: skip
    trainer = Encoding(
        transformer(), arguments, train_dataset=Examples(), compute_loss_func=cross_entropy,
        callbacks=callbacks,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer, seen


@pytest.mark.slow
def test_trainer(tmp_path: Path) -> None:
    check("Hugging Face `Trainer`", "`get_train_dataloader` wrapped", lambda: trained(tmp_path)[1])
    checkpoint = str(tmp_path / "checkpoint-5")
    check(
        "Hugging Face `Trainer`",
        "... and resumed in the middle of an epoch",
        lambda: trained(tmp_path, checkpoint)[1],
    )
    check(
        "Hugging Face `Trainer`",
        "... with `ignore_data_skip=True`",
        lambda: trained(tmp_path, checkpoint, ignore_data_skip=True)[1],
    )
    with pytest.raises(InstaHideError, match="ignore_data_skip=True"):
        trained(tmp_path, checkpoint)


def test_the_loss_is_the_cross_entropy_of_soft_labels(tmp_path: Path) -> None:
    trainer, seen = trained(tmp_path)
    first = next(entry for entry in trainer.state.log_history if "loss" in entry)
    images, labels = seen[0]
    with torch.no_grad():
        logits = transformer()(pixel_values=images).logits
    expected = -(labels * logits.log_softmax(1)).sum(1).mean()
    assert first["loss"] == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_gradients_are_those_of_the_mean_over_all_encodings_of_a_step(
    accumulated: int, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    found: list[list[Tensor]] = []

    class Gradients(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
            found.append([each.grad.clone() for each in model.parameters()])

    _, seen = trained(
        tmp_path, gradient_accumulation_steps=accumulated, max_grad_norm=0, callbacks=[Gradients()]
    )
    images, labels = (torch.cat(parts) for parts in zip(*seen[:accumulated], strict=True))
    network = transformer()
    nn.functional.cross_entropy(network(pixel_values=images).logits, labels).backward()
    for own, parameter in zip(found[0], network.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_loss_counts_the_encodings_of_other_processes_and_class_numbers() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    outputs = SimpleNamespace(logits=logits)
    numbers = torch.tensor([0, 1, 2, 0])
    soft = nn.functional.one_hot(numbers).float()
    mean = nn.functional.cross_entropy(logits, numbers)
    for labels in (numbers, soft):
        torch.testing.assert_close(cross_entropy(outputs, labels), mean)
        # Two processes, or two accumulated batches, with as many encodings each.
        items = 2 * labels.ne(-100).sum()
        half = cross_entropy(outputs, labels, num_items_in_batch=items)
        torch.testing.assert_close(half, mean / 2)


def test_without_it_the_network_takes_soft_labels_for_many_answers() -> None:
    """Why the page asks for `compute_loss_func`: this is what transformers does by itself."""
    network = transformer()
    images, labels = next(iter(encoded()))
    outputs = network(pixel_values=images, labels=labels)
    assert network.config.problem_type == "multi_label_classification"
    wrong = nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
    assert float(outputs.loss) == pytest.approx(float(wrong))
    assert float(outputs.loss) != pytest.approx(float(cross_entropy(outputs, labels)), rel=0.1)
