"""The server app: negotiates the specification, runs and tests the rounds, saves the results."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from torch import nn

from instahide.data import ImageTable
from instahide.encryption.privacy import privacy_statement
from instahide.errors import InstaHideError
from instahide.integrations.flower.arrays import load
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.server.negotiation import negotiate, normalized
from instahide.integrations.flower.server.round_log import LoggedStrategy, RoundLog
from instahide.integrations.flower.server.strategies import make_strategy
from instahide.training.device import pick_device, pick_precision
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.models.model_io import save_network
from instahide.training.run_folder import surroundings

RESULTS, NETWORK = "results.json", "model.safetensors"

server_app = ServerApp()
_log = logging.getLogger(__name__)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of a federation.

    Raises:
        InstaHideError: a setting is invalid, the test images cannot be read, or no client took
            part in any round.
    """
    settings = FederatedSettings.from_config(context.run_config)
    out = _new_folder(settings)
    agreement, test = negotiate(settings)
    network = agreement.network(settings)
    strategy = make_strategy(settings, network)
    agreement = normalized(agreement, settings, grid)
    facts = {
        "settings": settings.to_json_dict(),
        "surroundings": surroundings(settings),
        "differential_privacy": _privacy(settings),
    }
    round_log = RoundLog(facts, out and out / RESULTS)
    tester = Tester(network, agreement, settings, test, round_log)
    result = LoggedStrategy(strategy, round_log).start(
        grid,
        ArrayRecord(network.state_dict()),
        num_rounds=settings.rounds,
        timeout=settings.timeout,
        train_config=agreement.to_record(),
        evaluate_config=agreement.to_record(),
        evaluate_fn=tester,
    )
    round_log.write({"accuracy": tester.last})
    _log.info("%s", _privacy(settings))
    for node, reason in round_log.refusals().items():
        _log.warning("Participant %s took no part in some rounds: %s", node, reason)
    if not result.arrays:
        raise InstaHideError(
            "No client took part in any round, so that nothing was learned.",
            "See the reasons in the log above.",
        )
    if out is not None:
        save_network(out / NETWORK, load(network.cpu(), result.arrays), agreement.card(settings))


def _privacy(settings: FederatedSettings) -> str:
    """The privacy statement of the run, as far as the server knows."""
    if settings.dp:
        return f"Differential privacy: by DP-SGD, at delta = {settings.delta:g}; see each round"
    noise = bool(settings.encryption().noise)
    scope = ", but to the ledgers of the participants alone"
    return privacy_statement(None, noise=noise, scope=scope)


class Tester:
    """Tests the network on the server's test images, if any, at the end of each round.

    Attributes:
        last: accuracy after the last round, as a share; None without test images.
    """

    def __init__(
        self,
        network: nn.Module,
        agreement: FederationSpec,
        settings: FederatedSettings,
        test: ImageTable | None,
        round_log: RoundLog,
    ) -> None:
        self._device = pick_device(settings.device)
        self._precision = pick_precision(settings.precision, self._device)
        self._network = network.to(self._device)
        self._images = None if test is None else agreement.conform(test)
        self._round_log = round_log
        self.last: float | None = None

    def __call__(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Test after round ``number``; round 0, before the first, is skipped."""
        if number == 0:
            return None
        if self._images is not None:
            network = load(self._network, arrays)
            batches = table_batches(self._images)
            self.last = accuracy(network, batches, precision=self._precision).overall
        self._round_log.end(self.last)
        return None if self.last is None else MetricRecord({"accuracy": self.last})


def _new_folder(settings: FederatedSettings) -> Path | None:
    """The folder of the results, if the settings name one; it must hold no results yet."""
    if settings.out is None:
        return None
    folder = Path(settings.out)
    if (folder / RESULTS).exists():
        raise InstaHideError(f"{folder} holds results already.", "Choose another `out`.")
    return folder
