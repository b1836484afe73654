"""Every encoder keeps the promises of the interface, and what runs one counts what it publishes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide import Exposure, ImageTable, Scheme, open_split
from instahide.encodings.publish import Publication
from instahide.encryption.encoder import Encoder
from instahide.encryption.encoders.base import (
    EncoderInput,
    Encodings,
    ImageEncoder,
    InstanceEncoder,
    Published,
)
from instahide.encryption.encoders.checked_calls import epsilon_of_encoder
from instahide.encryption.encoders.registry import BUILTIN, encoder_named
from instahide.encryption.encoders.rivals.dp_instahide import DPInstaHide
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.encoders.table_encoder import TableEncoder, open_encoder
from instahide.encryption.guarantees.statements import Guarantees
from instahide.errors import ExposureLimitError, InstaHideError, SchemeError
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start
from tests.attacks.any_encoder.planted import Identity

#: Settings with which each encoder fits images of 8 x 8 pixels.
SETTINGS: dict[str, dict[str, Any]] = {"neuracrypt": {"width": 16}}


@pytest.fixture(scope="module")
def digits() -> ImageTable:
    return open_split("digits").train.subset(np.arange(40))


@pytest.fixture(scope="module")
def public() -> ImageTable:
    return open_split("digits").test.subset(np.arange(30))


def made(name: str) -> InstanceEncoder:
    return encoder_named(name, SETTINGS.get(name))


@pytest.mark.parametrize("name", BUILTIN)
def test_an_encoder_returns_what_the_interface_promises(
    name: str, digits: ImageTable, public: ImageTable
) -> None:
    method, random = made(name), SecretRandom()
    source = EncoderInput(digits, public.normalized_like(digits) if method.uses_public else None)
    rows = np.array([3, 0, 3, 39])
    key = method.draw_key(digits.shape, random)
    encodings = method.encode(source, rows, key, random)
    assert encodings.images.shape == (4, *method.output_shape(digits.shape))
    assert encodings.images.dtype == torch.float32
    assert encodings.rows.shape == encodings.coefficients.shape == (4, method.private_k)
    assert np.array_equal(encodings.rows[:, 0], rows)
    assert all(len(set(row)) == method.private_k for row in encodings.rows.tolist())
    # The label is the mix of the labels that the coefficients say.
    wanted = source.labels(encodings.rows, encodings.coefficients)
    torch.testing.assert_close(encodings.labels, wanted)
    assert (key is None) == (not method.has_data_set_key)
    inputs = method.network_input(torch.from_numpy(digits.normalized()), key, random)
    assert inputs.shape == (40, *method.output_shape(digits.shape))


@pytest.mark.parametrize("name", BUILTIN)
def test_settings_make_the_same_encoder_and_it_can_be_pickled(name: str) -> None:
    method = made(name)
    assert pickle.loads(pickle.dumps(method)) == method  # noqa: S301  our own
    assert encoder_named(method.name, method.settings) == method


@pytest.mark.parametrize("name", BUILTIN)
def test_encoders_draw_from_the_key_stream_alone(
    name: str, digits: ImageTable, public: ImageTable
) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    TableEncoder(made(name), digits, public).encode(np.arange(8))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert pickle.dumps(np.random.get_state()) == before[1]


@pytest.mark.parametrize("name", BUILTIN)
def test_every_private_image_in_an_encoding_is_counted(
    name: str, digits: ImageTable, public: ImageTable
) -> None:
    encoder = TableEncoder(made(name), digits, public)
    found = encoder.encode_with_rows(np.arange(40))
    counts = np.bincount(found.rows.reshape(-1), minlength=40)
    assert np.array_equal(encoder.exposure.counts, counts)
    assert encoder.exposure.counts.sum() == 40 * encoder.method.private_k


def test_a_scheme_encrypts_as_the_encoder_of_tables_does(digits: ImageTable) -> None:
    """The mix that the interface returns is the weighted sum of the images that it names."""
    scheme, random = Scheme.mixup(3), SecretRandom()
    made = scheme.encode(EncoderInput(digits), np.arange(8), None, random)
    parts = torch.from_numpy(digits.normalized(made.rows.reshape(-1))).reshape(8, 3, 1, 8, 8)
    mixes = (parts * torch.from_numpy(made.coefficients)[:, :, None, None, None]).sum(dim=1)
    torch.testing.assert_close(made.images, mixes)
    assert isinstance(open_encoder(scheme, digits), Encoder)
    assert isinstance(open_encoder(made_of("dp-instahide"), digits), TableEncoder)


def made_of(name: str) -> InstanceEncoder:
    return made(name)


def test_a_limit_holds_and_ends_a_block_early(digits: ImageTable) -> None:
    encoder = TableEncoder(made("block-scrambling"), digits, exposure=Exposure(40, limit=2))
    assert len(encoder.encode(np.array([0, 1, 0, 1, 0, 2])).images) == 4
    with pytest.raises(ExposureLimitError):
        encoder.encode(np.array([0]))
    assert encoder.exposure.counts.max() == 2


def test_a_table_encoder_is_not_copied_and_shows_no_key(digits: ImageTable) -> None:
    encoder = TableEncoder(made("block-scrambling"), digits)
    with pytest.raises(TypeError, match="another key"):
        pickle.dumps(encoder)
    for secret in (encoder._draws, encoder._key):
        assert "hidden" in repr(secret)
    assert "tensor" not in repr(encoder)


def test_an_account_for_a_scheme_is_refused(digits: ImageTable) -> None:
    class OfScheme(Exposure):
        def require_rate(self, rate: float) -> None:
            if rate > 1:
                raise InstaHideError("The account is of a scheme.", "Open another.")

    with pytest.raises(InstaHideError, match="of a scheme"):
        TableEncoder(made("dp-instahide"), digits, exposure=OfScheme(40))


@dataclass(frozen=True)
class Lies(ImageEncoder):
    """Says that it encodes other images than it was asked to."""

    name: ClassVar[str] = "lies"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: Any, random: SecretRandom
    ) -> Encodings:
        return super().encode(source, (rows + 1) % len(source.private), key, random)


@dataclass(frozen=True)
class Broken(ImageEncoder):
    """Returns values that are not numbers."""

    name: ClassVar[str] = "broken"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images / 0


@pytest.mark.parametrize("method", [Lies(), Broken()])
def test_what_an_encoder_returns_is_checked(method: ImageEncoder, digits: ImageTable) -> None:
    encoder = TableEncoder(method, digits)
    with pytest.raises(SchemeError, match="returned something else"):
        encoder.encode(np.arange(4))
    assert encoder.exposure.counts.sum() == 0


def test_an_encoder_that_mixes_public_images_needs_some(digits: ImageTable) -> None:
    with pytest.raises(SchemeError, match="public images"):
        TableEncoder(Scheme.cross(4), digits)


def test_only_noise_has_a_guarantee() -> None:
    published = Published(100, (1, 8, 8), (0.3,), 1)
    finite = {name for name in BUILTIN if np.isfinite(made(name).epsilon(published, 1e-5))}
    assert finite == {"noisy-mixup", "dp-instahide"}


@dataclass(frozen=True)
class Miscounts(ImageEncoder):
    """Mixes two images, and says something else of them."""

    what: str = "row"
    name: ClassVar[str] = "miscounts"
    private_k: ClassVar[int] = 2

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: Any, random: SecretRandom
    ) -> Encodings:
        far = 10**12 if self.what == "row" else 1
        partners = rows if self.what == "twice" else (rows + far)
        if self.what != "row":
            partners = partners % len(source.private)
        mixed, shares = np.stack([rows, partners], axis=1), np.full((len(rows), 2), 0.5, np.float32)
        if self.what == "share":
            shares[0, 1] = np.nan
        images = source.images(rows)
        return Encodings(images, source.labels(rows[:, None], shares[:, :1]), mixed, shares)


@pytest.mark.parametrize("what", ["row", "twice", "share"])
def test_what_cannot_be_counted_is_refused_before_it_is_counted(
    what: str, digits: ImageTable
) -> None:
    encoder = TableEncoder(Miscounts(what), digits)
    with pytest.raises(SchemeError, match="returned something else"):
        encoder.encode(np.arange(4))
    assert encoder.exposure.counts.sum() == 0


@dataclass(frozen=True)
class Borrowed(ImageEncoder):
    """Has the name of a built-in encoder, whose guarantee it lacks."""

    name: ClassVar[str] = "dp-instahide"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images


def test_no_other_encoder_has_the_name_and_so_the_guarantee_of_a_built_in_one(
    digits: ImageTable,
) -> None:
    with pytest.raises(SchemeError, match="name of the built-in encoder"):
        TableEncoder(Borrowed(), digits)
    with pytest.raises(SchemeError, match="name of the built-in encoder"):
        Publication(digits, None, Borrowed(), copies=1, values="float32")
    with pytest.raises(SchemeError, match="name of the built-in encoder"):
        encoder_named(f"{__name__}:Borrowed")


@dataclass(frozen=True)
class MyEncoder(DPInstaHide):
    """Inherits the name and the epsilon, and does something else."""

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: None, random: SecretRandom
    ) -> Encodings:
        raise AssertionError("not reached")


def test_the_page_has_the_message_for_a_class_that_inherits_a_name_and_its_guarantee(
    digits: ImageTable,
) -> None:
    with pytest.raises(SchemeError) as refused:
        TableEncoder(MyEncoder(), digits)
    page = (Path(__file__).parents[3] / "docs/encoders.md").read_text(encoding="utf-8")
    assert f"```text\n{refused.value.problem} {refused.value.remedy}\n```" in page


@dataclass(frozen=True)
class Forgetful(ImageEncoder):
    """Draws a key, and does not say so."""

    name: ClassVar[str] = "forgetful"

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> int:
        return 1

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images


def test_an_encoder_with_a_key_must_say_so(digits: ImageTable) -> None:
    with pytest.raises(SchemeError, match="returned a key"):
        TableEncoder(Forgetful(), digits)


@dataclass(frozen=True)
class States(ImageEncoder):
    """States an epsilon, whatever it publishes; an exception is raised."""

    stated: Any = 1.0
    name: ClassVar[str] = "states"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images

    def epsilon(self, published: Published, delta: float) -> float:
        if isinstance(self.stated, Exception):
            raise self.stated
        found: float = self.stated
        return found


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (-3.0, "states epsilon = -3.0"),
        (float("nan"), "states epsilon = nan"),
        (-math.inf, "states epsilon = -inf"),
        (None, "states epsilon = None"),
        (True, "states epsilon = True"),
        ("2", "states epsilon = 2"),
        (torch.tensor(2.0), "states epsilon = tensor"),
        (10**400, "failed in `epsilon`"),
        (ZeroDivisionError("by zero"), r"failed in `epsilon` \(by zero\)"),
    ],
)
def test_an_epsilon_that_is_no_bound_is_refused(stated: Any, told: str, digits: ImageTable) -> None:
    published = Published(40, digits.shape, digits.std, 1)
    for use in (
        lambda: epsilon_of_encoder(States(stated), published, 1e-5),
        lambda: Guarantees.of_encoder(States(stated), published, uneven=False),
        lambda: TableEncoder(States(stated), digits),
    ):
        with pytest.raises(SchemeError, match=told):
            use()


@pytest.mark.parametrize("stated", [0, 2, 0.5, np.float32(0.5), math.inf])
def test_an_epsilon_of_any_type_of_number_is_a_float(stated: Any, digits: ImageTable) -> None:
    published = Published(40, digits.shape, digits.std, 1)
    found = epsilon_of_encoder(States(stated), published, 1e-5)
    assert type(found) is float
    assert found == stated
    assert Guarantees.of_encoder(States(stated), published, uneven=False).epsilon == stated


def test_training_refuses_an_epsilon_that_is_no_bound_before_it_begins(tmp_path: Path) -> None:
    settings = TrainSettings(
        data="digits", encoder=f"{__name__}:States", encoder_settings=["stated=-3.0"], epochs=1,
        ledger=str(tmp_path / "ledger.sqlite"),
    )  # fmt: skip
    with pytest.raises(SchemeError, match=r"epsilon = -3\.0"):
        start(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Misbehaves(ImageEncoder):
    """Encodes images by themselves, in one of several wrong ways."""

    how: str = "raises"
    name: ClassVar[str] = "misbehaves"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        if self.how == "raises":
            raise ValueError("boom")
        if self.how == "graph":
            return torch.nn.Conv2d(1, 1, 1)(images) * torch.nn.Parameter(torch.ones(()))
        return torch.nn.Parameter(images) if self.how == "parameter" else images

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: Any, random: SecretRandom
    ) -> Encodings:
        if self.how == "sorts":
            rows.sort()
        made = super().encode(source, rows, key, random)
        if self.how in WRONG_LABELS:
            return made._replace(labels=WRONG_LABELS[self.how](made.labels))
        if self.how == "array":
            return made._replace(images=made.images.numpy())  # type: ignore[arg-type]
        return tuple(made) if self.how == "tuple" else made  # type: ignore[return-value]


WRONG_LABELS: dict[str, Callable[[Tensor], Tensor]] = {
    "nan": lambda labels: labels * math.nan,
    "negative": lambda labels: -labels,
    "large": lambda labels: 7 * labels,
    "double": lambda labels: labels.double(),
    "few": lambda labels: labels[:, 1:],
}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raises", r"misbehaves failed in `encode` \(boom\)"),
        ("array", "misbehaves returned no `Encodings`"),
        ("tuple", "misbehaves returned no `Encodings`"),
        ("sorts", "misbehaves returned something else"),
        *((how, "misbehaves returned labels that are not") for how in WRONG_LABELS),
    ],
)
def test_what_a_misbehaving_encoder_does_is_named_and_not_counted(
    how: str, told: str, digits: ImageTable
) -> None:
    encoder, rows = TableEncoder(Misbehaves(how), digits), np.array([5, 3, 9])
    with pytest.raises(SchemeError, match=told):
        encoder.encode(rows)
    assert encoder.exposure.counts.sum() == 0
    assert rows.tolist() == [5, 3, 9]


@pytest.mark.parametrize("how", ["graph", "parameter"])
def test_encodings_carry_no_gradients(how: str, digits: ImageTable) -> None:
    encoder = TableEncoder(Misbehaves(how), digits)
    encoded = encoder.encode(np.arange(4))
    inputs = encoder.network_inputs(digits, np.arange(4))
    assert not any(part.requires_grad for part in (*encoded, inputs))


@dataclass(frozen=True)
class FailsIn(Misbehaves):
    """Fails in a method besides `encode`."""

    method: str = "output_shape"
    has_data_set_key: ClassVar[bool] = True

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._or_fails("output_shape", shape)

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> Any:
        return self._or_fails("draw_key", 1)

    def network_input(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return self._or_fails("network_input", images)

    def _or_fails(self, method: str, found: Any) -> Any:
        if self.method == method:
            raise RuntimeError("out of order")
        return found


@pytest.mark.parametrize("method", ["output_shape", "draw_key", "network_input"])
def test_a_method_that_fails_is_named(method: str, digits: ImageTable) -> None:
    with pytest.raises(SchemeError, match=rf"failed in `{method}` \(out of order\)"):
        TableEncoder(FailsIn("right", method), digits).network_inputs(digits)


@dataclass(frozen=True)
class NoInput(ImageEncoder):
    """Gives the network an array."""

    name: ClassVar[str] = "no-input"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images

    def network_input(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        found: Tensor = images.numpy()  # type: ignore[assignment]
        return found


def test_the_input_of_a_network_is_a_tensor(digits: ImageTable) -> None:
    with pytest.raises(SchemeError, match="returned ndarray as the input of a network"):
        TableEncoder(NoInput(), digits).network_inputs(digits)


@dataclass(frozen=True)
class PublicMean(Identity):
    """Would mix public images in."""

    name = "public-mean"
    uses_public: ClassVar[bool] = True


def test_a_public_pool_with_private_images_is_refused() -> None:
    """What another encoder draws of the pool is not known, and would go uncounted."""
    train, test = open_split("digits")
    private = train.subset(np.arange(20))
    encoder = TableEncoder(PublicMean(), private, test.normalized_like(private))
    assert len(encoder.encode(np.arange(20)).images) == 20
    with pytest.raises(SchemeError, match="also has 5 of the private images"):
        TableEncoder(PublicMean(), private, train.subset(np.arange(15, 60)))
