"""Encodings from the gradient of a dense first layer, exactly and for whole batches.

The gradient of a dense layer's weights is a sum over the n encodings, D X with D (units, n) the
slopes at its outputs and X (n, values) the encodings; that of its bias is the sum of the columns of
D. The change of the weights over several local steps has the same form. A singular value
decomposition gives D and X up to an invertible matrix (n, n). Behind the layer is a ReLU, so each
column of D is zero for the units that its encoding does not activate, about half of them, and the
columns are the sparsest vectors of their space (Dimitrov et al., "SPEAR", NeurIPS 2024,
arXiv:2403.03945). Starts for the search come from independent component analysis of the encodings,
whose masks are independent (Kariyappa et al., "Cocktail Party Attack", ICML 2023,
arXiv:2209.05578), and from the units that a guessed encoding would not activate.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from instahide.attacks.base import InvertedUpdate, Progress, UpdateObservation, require
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.labels import labels_of_dense
from instahide.attacks.gradients.problem import Problem, inapplicable

#: A slope counts as zero below this share of the largest one of its encoding.
ZERO = 1e-4
#: Share of the units, those that are nearest to zero, to which a guess is refined; and of those
#: that a guessed encoding activates least, from which a guess starts.
KEPT, QUIET = 0.25, 0.15
#: A guess is a column if at least this share of its slopes is zero: the first in the first round,
#: the second from the given round on. A sum of two columns has about a quarter.
SPARSE, LESS_SPARSE, PATIENCE = 0.4, 0.26, 20
#: A recovered encoding is confirmed if the network activates the units of its slopes, up to this
#: share of the units, whose activation may change during local steps.
AGREEING = 0.9
#: Columns are independent if this share of each is.
INDEPENDENT = 1e-3
#: Guesses per round of the search; largest number of steps of a refinement, and of the component
#: analysis.
GUESSES, REFINEMENTS, COMPONENT_STEPS = 64, 20, 100


@dataclass(frozen=True)
class DenseLayer:
    """Recovers the encodings behind an update of a network that begins with a dense layer.

    Attributes:
        rounds: largest number of rounds of guesses.
        seed: seed of the guesses.
    """

    rounds: int = 100
    seed: int = 0
    name: str = "dense-layer"
    title: str = "Images from the update of a dense first layer, by its sparse slopes"
    paper: str = "Dimitrov et al., SPEAR, NeurIPS 2024 (arXiv:2403.03945)"
    observes: ClassVar[type[UpdateObservation]] = UpdateObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: UpdateObservation) -> str | None:
        """Applies if a dense layer with a bias sees the images, and has units enough."""
        reason = inapplicable(observation)
        if reason is not None:
            return reason
        layer = first_layer(observation)
        if layer is None:
            return "The network does not begin with a dense layer with a bias."
        training = observation.update.training
        units, values = observation.update.values[f"{layer}.weight"].shape
        if training.images > 1 and min(units // 4, values // 2) < training.images:
            return (
                f"The first layer has {units} units and {values} inputs, too few for "
                f"{training.images} images."
            )
        if training.batch_size * max(training.steps, 1) < training.images:
            return "The participant did not train on all of its images."
        return None

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The encodings, with their labels if the attacker had none.

        The statistic ``confirmed`` is the share of them that the network confirms.
        """
        problem, layer = Problem.of(observation), require(first_layer(observation))
        search = _Search(problem, layer, torch.Generator().manual_seed(self.seed))
        for number in range(self.rounds):
            progress("guesses", number / self.rounds)
            if search.complete or budget.over:
                break
            search.guess(SPARSE - (SPARSE - LESS_SPARSE) * min(1.0, number / PATIENCE))
            search.prune()
        images, confirmed = search.solution()
        # Others may be far outside the values that an encoding can have.
        within = images.clamp(problem.low, problem.high)
        images = torch.where(confirmed.reshape(-1, *(1,) * (images.ndim - 1)), images, within)
        progress("guesses", 1.0)
        return InvertedUpdate(
            images.float().cpu(),
            labels_of_dense(problem.replay, images, observation.scheme)
            if problem.labels is None
            else None,
            statistics={"confirmed": float(confirmed.double().mean())},
        )


def first_layer(observation: UpdateObservation) -> str | None:
    """The name of a dense layer with a bias that sees the images themselves; None without one."""
    seen: dict[str, Tensor] = {}
    # A copy, because a batch norm would learn from the probe.
    network = deepcopy(observation.network).eval()
    for name, part in network.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(partial(_keep, seen, name))
    probe = torch.randn(2, *observation.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network(probe.to(next(iter(network.parameters()))))
    for name, values in seen.items():
        sent = {f"{name}.weight", f"{name}.bias"} <= set(observation.update.values)
        if sent and torch.equal(values.cpu(), probe.flatten(1).to(values.dtype)):
            return name
    return None


def _keep(seen: dict[str, Tensor], name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen[name] = inputs[0].detach()


class _Search:
    """A search for the columns, as combinations of the left singular vectors.

    Attributes:
        pool: (c, n) the columns found so far.
        zero: (c,) the share of their slopes that is zero.
    """

    def __init__(self, problem: Problem, layer: str, generator: torch.Generator) -> None:
        sent = problem.replay.sent
        self.weight, self.bias = sent[f"{layer}.weight"], sent[f"{layer}.bias"]
        before = problem.replay.weights
        self.before = before[f"{layer}.weight"].detach(), before[f"{layer}.bias"].detach()
        self.shape, self.generator = problem.shape, generator
        self.count = problem.shape[0]
        left, values, right = torch.linalg.svd(self.weight, full_matrices=False)
        self.values, self.right = values[: self.count], right[: self.count]
        alive = self.weight.norm(dim=1) > ZERO * self.weight.norm(dim=1).amax()
        self.left, self.alive = left[:, : self.count], alive
        # Of a single encoding, every combination is its column.
        alone = int(self.count == 1)
        self.pool, self.zero = torch.ones(alone, self.count).to(left), torch.ones(alone).to(left)

    @property
    def complete(self) -> bool:
        """Whether there is a column for each encoding."""
        return len(self.pool) == self.count

    def guess(self, sparse: float) -> None:
        """Add the columns, of which a share of ``sparse`` is zero, that new guesses lead to."""
        for guesses in self._guesses():
            refined = _refined(guesses, self.left[self.alive])
            slopes = (refined @ self.left[self.alive].T).abs()
            zero = (slopes < ZERO * slopes.amax(dim=1, keepdim=True)).double().mean(dim=1)
            good = zero >= sparse
            self.pool = torch.cat([self.pool, refined[good]])
            self.zero = torch.cat([self.zero, zero[good]])
            self._select()

    def _select(self) -> None:
        """Choose columns of the pool, those with most zeros first, each independent of the others.

        A sum of columns has fewer zeros than each of them. Only the chosen ones stay in the pool.
        """
        order = self.zero.argsort(descending=True, stable=True)
        self.pool, self.zero = self.pool[order], self.zero[order]
        rest, chosen = self.pool.clone(), []
        for place in range(len(self.pool)):
            length = rest[place].norm()
            if length > INDEPENDENT:
                chosen.append(place)
                direction = rest[place] / length
                rest = rest - (rest @ direction)[:, None] * direction
        self.pool, self.zero = self.pool[chosen], self.zero[chosen]

    def prune(self) -> None:
        """Drop the columns of encodings that the network does not confirm, once all are there."""
        if self.complete:
            confirmed = self.solution()[1]
            self.pool, self.zero = self.pool[confirmed], self.zero[confirmed]

    def solution(self) -> tuple[Tensor, Tensor]:
        """(n, C, H, W) encodings, and (n,) bool which of them the network confirms.

        Missing columns are completed to a basis by arbitrary ones.
        """
        columns = self.left @ self._basis().T
        scale = torch.linalg.lstsq(columns, self.bias[:, None]).solution[:, 0]
        columns = columns * torch.where(scale.abs() > 1e-12, scale, 1.0)
        images = torch.linalg.lstsq(columns, self.weight).solution
        weight, bias = self.before
        active = images @ weight.T + bias > 0
        sizes = columns.abs().T
        same = active == (sizes >= ZERO * sizes.amax(dim=1, keepdim=True))
        agree = same[:, self.alive].double().mean(dim=1) >= AGREEING
        return images.reshape(self.shape), agree | (self.count == 1)

    def _basis(self) -> Tensor:
        """(n, n) the found columns, and others that complete them."""
        missing = self.count - len(self.pool)
        if not missing:
            return self.pool
        return torch.cat([self.pool, _complement(self.pool)[:missing]])

    def _guesses(self) -> Iterator[Tensor]:
        """(g, n) guesses of columns, in two groups."""
        components = self._components()
        first = self.values * torch.linalg.pinv(components).T
        yield first / first.norm(dim=1, keepdim=True)
        random = torch.randn(
            GUESSES, len(components), generator=self.generator, dtype=torch.float64
        ).to(components)
        directions = torch.cat([components, random @ components])
        yield self._quiet(torch.cat([directions, -directions]))

    def _quiet(self, directions: Tensor) -> Tensor:
        """(g, n) columns that are least for the units that guessed encodings activate least.

        ``directions``: (g, n) guessed encodings, as combinations of the right singular vectors.
        """
        inputs = (directions @ self.right) @ self.before[0][self.alive].T
        least = max(self.count + 1, int(QUIET * inputs.shape[1]))
        return _smallest(self.left[self.alive], inputs.argsort(dim=1)[:, :least])

    def _components(self) -> Tensor:
        """(r, n) independent components in the span of the encodings that are still missing.

        An encoding, divided by the singular values, is orthogonal to the columns of all others, so
        those missing are in the complement of the columns found.
        """
        span = torch.linalg.qr((_complement(self.pool) * self.values).T)[0].T
        data = span @ self.right * self.right.shape[1] ** 0.5
        start = torch.randn(len(span), len(span), generator=self.generator, dtype=torch.float64)
        turn = torch.linalg.qr(start.to(data))[0]
        for _ in range(COMPONENT_STEPS):
            squashed = (turn @ data).tanh()
            slope = (1 - squashed.square()).mean(dim=1, keepdim=True)
            one, _, other = torch.linalg.svd(squashed @ data.T / data.shape[1] - slope * turn)
            before, turn = turn, one @ other
            if ((turn * before).sum(dim=1).abs() > 1 - 1e-6).all():
                break
        found: Tensor = turn @ span
        return found


def _complement(rows: Tensor) -> Tensor:
    """(n - c, n) orthonormal rows that are orthogonal to ``rows`` (c, n)."""
    _, _, right = torch.linalg.svd(rows, full_matrices=True)
    found: Tensor = right[len(rows) :]
    return found


def _refined(guesses: Tensor, left: Tensor) -> Tensor:
    """(g, n) guesses refined towards sparse columns: repeatedly, the smallest rows become zero."""
    kept = max(left.shape[1] + 1, int(KEPT * len(left)))
    for _ in range(REFINEMENTS):
        nearest = (guesses @ left.T).abs().argsort(dim=1)[:, :kept]
        after = _smallest(left, nearest)
        settled = ((after * guesses).sum(dim=1).abs() > 1 - 1e-12).all()
        guesses = after
        if settled:
            break
    return guesses


def _smallest(left: Tensor, rows: Tensor) -> Tensor:
    """(g, n) the unit vectors with the smallest products with ``rows`` (g, r) of ``left``."""
    chosen = left[rows]
    _, vectors = torch.linalg.eigh(chosen.transpose(1, 2) @ chosen)
    least: Tensor = vectors[:, :, 0]
    return least
