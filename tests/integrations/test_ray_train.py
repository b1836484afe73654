"""Ray Train, in real workers: no order leads to a plain image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integrations.matrix import COUNT, documented

ray = pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[2]


def loop(config: dict[str, Any]) -> None:
    """What each worker runs; each writes down what it saw."""
    import sys

    sys.path[:0] = config["path"]
    from ray.train import get_context
    from ray.train.torch import prepare_data_loader

    from tests.integrations.matrix import InstaHideError, encoded, plain, require_encodings

    loader = encoded(prepare_data_loader(plain()))
    found: dict[str, Any] = {
        "first": sum(require_encodings(*batch) for batch in loader),
        "counts": loader.exposure.counts.tolist(),
    }
    try:
        found["last"] = sum(require_encodings(*batch) for batch in prepare_data_loader(encoded()))
    except InstaHideError as error:
        found["last"] = str(error)
    Path(config["out"], f"{get_context().get_world_rank()}.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_see_encodings_or_an_error(workers: int, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        TorchTrainer(
            loop,
            train_loop_config={"out": str(tmp_path), "path": [str(ROOT), str(ROOT / "src")]},
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(storage_path=str(tmp_path / "ray")),
        ).fit()
    finally:
        ray.shutdown()
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [each["first"] for each in found] == [COUNT // workers] * workers
    # The workers' images are disjoint, and partners come from a worker's own.
    used = np.array([each["counts"] for each in found]) > 0
    assert (used.sum(0) == 1).all()
    table = documented()
    assert table["Ray Train", "`prepare_data_loader`, then `encode_loader`"] == "encodings"
    if workers == 1:
        last = "`encode_loader`, then `prepare_data_loader`, one worker"
        assert table["Ray Train", last] == "encodings"
        assert found[0]["last"] == COUNT
    else:
        last = "`encode_loader`, then `prepare_data_loader`, several workers"
        assert table["Ray Train", last] == "refused"
        assert all("encode_loader" in each["last"] for each in found)
