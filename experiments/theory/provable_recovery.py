"""The algorithm with a proof: private images that are Gaussian noise, two in every encoding.

Huang et al., "InstaHide's Sample Complexity When Mixing Two Private Images" (arXiv:2011.11877),
after Chen et al., "On InstaHide, Phase Retrieval, and Sparse Matrix Factorization"
(arXiv:2011.11181). In their model every pixel of every image is standard normal, an encoding is
|(a + b) / sqrt(2) + (p_1 + ... + p_j) / sqrt(j)| of private images a, b and known public ones p,
and its steps are theirs: the inner products of all coefficients from the covariance of folded
Gaussians; the public images out of these; which images each encoding holds, as encodings that
share one are the edges of a graph that share an end; then the values, sign by sign.

No photograph is like that, and no scheme here has equal coefficients: this checks the theory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import networkx
import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.errors import InstaHideError

#: Private images of an encoding.
PRIVATE_K = 2
#: Deviation of the product of two uncorrelated folded normal values, less their means.
UNCORRELATED = 1 - 2 / math.pi
#: Of covariances, in deviations: to either side of the middle between two of them, so that one
#: encoding in 300,000 is taken wrongly; and as none would be off, of 10^9, if the model held.
SURE, ODD = 4.5, 7
#: A graph of so many edges is the only one with its line graph (Whitney, 1932).
LEAST_PAIRS = 7
#: Values are found by trying 2^n signs, n private images: more than this would take hours.
MOST_IMAGES = 16
#: Mean squared error, for sizes of 1, that rounding alone may leave.
EXACT = 1e-9
#: Numbers in memory at a time.
BLOCK = 4_000_000


class Proven(NamedTuple):
    """What was found of n private images with d pixels in m encodings.

    ``images`` (n, d), where nothing public is mixed in but for one sign of each pixel, common to
    all images; ``members`` (m, 2) images of each encoding; ``public`` (m, j) public ones.
    """

    images: Tensor
    members: Tensor
    public: Tensor


def recover_provably(sizes: Tensor, public: Tensor, public_k: int = 0) -> Proven:
    """All private images, however many there are.

    Args:
        sizes: (m, d) absolute values of encodings in the model above.
        public: (N, d) all public images, standard normal; (0, d) for none.
        public_k: how many of them are in an encoding.

    Raises:
        InstaHideError: a condition of the theory does not hold, and which; or there are more
            private images than signs could be tried for.
    """
    chosen = public_members(sizes, public, public_k)
    mixed = torch.full(chosen.shape, 1 / math.sqrt(max(public_k, 1))).to(sizes)
    shares = weights(chosen, mixed, len(public))
    members = pairs_of(shared_counts(sizes, shares @ shares.T))
    even = torch.full(members.shape, 1 / math.sqrt(PRIVATE_K)).to(sizes)
    private = weights(members, even, int(members.max()) + 1)
    return Proven(signed_values(sizes, private, shares @ public), members, chosen)


def public_members(sizes: Tensor, public: Tensor, public_k: int) -> Tensor:
    """(m, public_k) public images in each encoding.

    The mean of x^2 (p p' - 1) over pixels is twice the square of the public coefficients, as a
    matrix; its leading eigenvector is largest where they are not 0.

    Args:
        sizes: (m, d).
        public: (N, d).
        public_k: how many of them are in an encoding.
    """
    if public_k == 0:
        return torch.zeros(len(sizes), 0, dtype=torch.int64, device=sizes.device)
    squares = sizes.square()
    moments = torch.stack([(public * row) @ public.T for row in squares]) / sizes.shape[1]
    moments -= squares.mean(dim=1)[:, None, None] * torch.eye(len(public)).to(sizes)
    leading = torch.linalg.eigh(moments).eigenvectors[:, :, -1]
    members: Tensor = leading.abs().topk(public_k, dim=1).indices
    return members.sort(dim=1).values


def folded(r: Tensor) -> Tensor:
    """Covariance of |u| and |v| for standard normal u and v of correlation ``r``."""
    area: Tensor = (1 - r.square()).clamp(min=0).sqrt() + r * r.clamp(max=1).asin() - 1
    return 2 / math.pi * area


def shared_counts(sizes: Tensor, known: Tensor) -> Tensor:
    """(m, m) how many private images encodings share: 0, 1 or 2.

    Coefficients are not negative, so that the covariance of absolute values grows with their inner
    product. The papers invert `folded`, which is flat at 0; here the covariance itself is compared
    with what 0, 1 or 2 shared images would give, which takes fewer pixels.

    Args:
        sizes: (m, d), pixels being independent.
        known: (m, m) inner products of the public coefficients.

    Raises:
        InstaHideError: too few pixels to tell, or covariances that the model does not have.
    """
    energy, pixels = 1 + float(known[0, 0]), sizes.shape[1]
    centred = sizes - sizes.mean(dim=1, keepdim=True)
    seen = centred @ centred.T / pixels / energy
    shared = torch.arange(PRIVATE_K + 1).to(sizes) / PRIVATE_K
    gaps = (folded((known[:, :, None] + shared) / energy) - seen[:, :, None]).abs().min(dim=2)
    gap, deviation = float(folded(shared[1] / energy)), UNCORRELATED / math.sqrt(pixels)
    enough = math.ceil((2 * SURE * UNCORRELATED / gap) ** 2)
    if pixels < enough:
        raise InstaHideError(
            f"{pixels} pixels are too few to tell encodings that share a private image.",
            f"The theory needs {enough} pixels for such encodings, all independent and normal.",
        )
    others = (gaps.indices < PRIVATE_K).fill_diagonal_(fill_value=False)
    if (gaps.values[others] > ODD * deviation).any():
        raise InstaHideError(
            "Covariances of absolute values are not those of two private images an encoding.",
            "The theory needs independent normal pixels and equal coefficients.",
        )
    return gaps.indices.fill_diagonal_(PRIVATE_K)


def pairs_of(counts: Tensor) -> Tensor:
    """(m, 2) private images of each encoding, numbered from 0, from what encodings share (m, m).

    Encodings are edges between the two images that they hold. Which edges meet is a line graph;
    its root is found by Roussopoulos' algorithm.

    Raises:
        InstaHideError: encodings do not hang together, are too few, or are of no such pairs.
    """
    # The first encoding of the same pair stands for all.
    same = (counts == PRIVATE_K).int().argmax(dim=1)
    first = sorted(set(same.tolist()))
    meet = networkx.Graph()
    meet.add_nodes_from(first)
    meet.add_edges_from((a, b) for a in first for b in first if a < b and counts[a, b] == 1)
    if len(first) < LEAST_PAIRS or not networkx.is_connected(meet):
        raise InstaHideError(
            f"{len(first)} pairs of private images do not hang together, or are too few, to tell "
            "which images they are of.",
            "The theory needs encodings in the order of n log n, n private images.",
        )
    try:
        ends = sorted(networkx.inverse_line_graph(meet))
    except networkx.NetworkXError as error:
        raise InstaHideError(
            "What encodings share is not what pairs of private images would.",
            "The theory needs exactly two private images in each encoding, and enough pixels.",
        ) from error
    found = {node: [image for image, end in enumerate(ends) if node in end] for node in first}
    return torch.tensor([found[int(node)] for node in same], device=counts.device)


def signed_values(sizes: Tensor, private: Tensor, offset: Tensor) -> Tensor:
    """(n, d) the values x of which |private x + offset| is nearest to ``sizes``, pixel by pixel.

    Signs of n encodings give all values, and those of all others tell which signs are right.

    Args:
        sizes: (m, d).
        private: (m, n) coefficients.
        offset: (m, d) what public images add.

    Raises:
        InstaHideError: too many images, or encodings that do not determine them.
    """
    basis = _independent(private)
    inverse = torch.linalg.inv(private[basis])
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0]).to(sizes)] * len(basis)).T
    if not offset.any():  # x and -x are the same then.
        signs = signs[:, : signs.shape[1] // 2]
    values, errors = [], []
    pixels = max(1, BLOCK // (len(private) * signs.shape[1]))
    for seen, added in _columns(pixels, sizes, offset):
        tried = signs[:, None, :] * seen[basis, :, None] - added[basis, :, None]
        found = torch.einsum("ab,bpt->apt", inverse, tried)
        mixed = torch.einsum("ma,apt->mpt", private, found) + added[:, :, None]
        error = (mixed.abs() - seen[:, :, None]).square().mean(dim=0)
        best = error.topk(2, dim=1, largest=False)
        values.append(found.gather(2, best.indices[:, 0].expand(len(basis), -1)[:, :, None]))
        errors.append(best.values[:, 1])
    if torch.cat(errors).median() < EXACT * sizes.square().mean():
        raise InstaHideError(
            "More than one choice of signs goes with what was seen of a pixel.",
            "The theory needs encodings in the order of n log n, n private images, so that each "
            "is in several.",
        )
    return torch.cat(values, dim=1)[:, :, 0]


def _columns(count: int, *arrays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """``count`` columns of all ``arrays`` at a time."""
    return zip(*(torch.split(array, count, dim=1) for array in arrays), strict=True)


def _independent(private: Tensor) -> list[int]:
    """As many rows as columns of ``private`` (m, n), none a sum of others.

    Raises:
        InstaHideError: there are not so many, or too many signs of them to try.
    """
    images = private.shape[1]
    if images > MOST_IMAGES:
        raise InstaHideError(
            f"The signs of {images} private images are 2^{images} to try for every pixel.",
            f"Use at most {MOST_IMAGES} private images.",
        )
    rows: list[int] = []
    for row in range(len(private)):
        if int(torch.linalg.matrix_rank(private[[*rows, row]])) > len(rows):
            rows.append(row)
    if len(rows) < images:
        raise InstaHideError(
            "The encodings are of pairs between two halves of the images: what one half has more, "
            "the other may have less.",
            "The theory needs some odd circle of pairs, as random pairs soon have.",
        )
    return rows
