"""Principal components of the features of encodings, without all features in memory at once.

The features of 100,000 encodings of 3 x 32 x 32 would need 7 GB, their 512 principal components
need 205 MB. The first components also tell better which encodings share an image: those that are
left out are mostly noise. The components are those of a sample, found by a randomized range finder
(Halko et al., arXiv:0909.4061, algorithm 4.4). The features of all encodings are then computed and
projected block by block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: Least and largest number of principal components: more encodings hold more images, which need
#: more directions. Number of encodings for each component in between.
COMPONENTS, MOST_COMPONENTS, ENCODINGS_EACH = 128, 512, 64
#: Number of further components that the range finder computes.
FURTHER = 64
#: Passes of the power iteration, after which small components are told from noise.
PASSES = 2
#: Largest number of encodings in the sample, and largest number of their feature values.
SAMPLE, SAMPLE_VALUES = 4096, 1 << 27
#: Number of encodings whose features are computed at a time.
BATCH = 250


def compressed(
    sizes: Tensor, features: Callable[[Tensor], Tensor], components: int | None = None
) -> Tensor:
    """(n, d) principal components of `standardised` features, where d is at most ``components``.

    Args:
        sizes: (n, C, H, W) what the features are computed from.
        features: computes features (r, D) of a block (r, C, H, W), each row independently.
        components: largest number of components; by default it depends on n.
    """
    if components is None:
        components = min(max(COMPONENTS, len(sizes) // ENCODINGS_EACH), MOST_COMPONENTS)
    values = features(sizes[:1]).shape[1]
    rows = min(len(sizes), SAMPLE, max(2 * components, SAMPLE_VALUES // values))
    chosen = torch.linspace(0, len(sizes) - 1, rows, device=sizes.device).long()
    sample = torch.empty(rows, values, device=sizes.device)
    for block, some in zip(torch.split(sample, BATCH), torch.split(chosen, BATCH), strict=True):
        block.copy_(features(sizes[some]))
    mean = sample.mean(dim=0)
    sample -= mean
    sample /= sample.norm(dim=1, keepdim=True).clamp(min=1e-12)
    basis = principal_components(sample, components)
    del sample
    # Parts to be joined would lie between blocks of features, whose memory would then stay in use.
    found = torch.empty(len(sizes), basis.shape[1], device=sizes.device)
    for block, some in zip(torch.split(found, BATCH), torch.split(sizes, BATCH), strict=True):
        torch.mm(F.normalize(features(some) - mean, dim=1), basis, out=block)
    return found


def principal_components(sample: Tensor, components: int) -> Tensor:
    """(D, d) orthonormal directions of largest energy of ``sample`` (s, D), largest first."""
    most = min(sample.shape)
    width = min(components + FURTHER, most)
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(sample.shape[1], width, generator=generator).to(sample)
    for _ in range(PASSES):
        found = torch.linalg.qr(sample.T @ (sample @ found)).Q
    rotation = torch.linalg.svd(sample @ found, full_matrices=False).Vh.T
    directions: Tensor = found @ rotation[:, : min(components, most)]
    return directions
