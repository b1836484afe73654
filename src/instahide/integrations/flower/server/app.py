"""The server app: negotiates the specification, runs and tests the rounds, saves the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from instahide.encryption.privacy import privacy_statement
from instahide.errors import InstaHideError
from instahide.integrations.flower.arrays import load
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.server.negotiation import completed, negotiate
from instahide.integrations.flower.server.round_log import LoggedStrategy, RoundLog
from instahide.integrations.flower.server.strategies import make_strategy
from instahide.integrations.flower.server.tester import Tester
from instahide.integrations.flower.task_metrics import means_over_clients
from instahide.training.models.model_io import save_network
from instahide.training.run_folder import surroundings
from instahide.utils.folder_lock import only_process

RESULTS, NETWORK = "results.json", "model.safetensors"

server_app = ServerApp()
_log = logging.getLogger(__name__)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of a federation.

    Raises:
        InstaHideError: a setting is invalid, the test images cannot be read, another run writes to
            the folder of the results, or no round changed the network.
    """
    settings = FederatedSettings.from_config(context.run_config)
    with _new_folder(settings) as out:
        _run(settings, grid, out)


def _run(settings: FederatedSettings, grid: Grid, out: Path | None) -> None:
    agreement, test = negotiate(settings)
    settings = agreement.complete(settings)
    network = agreement.network(settings)
    strategy = make_strategy(settings, network, agreement.task)
    agreement = completed(agreement, settings, grid)
    facts: dict[str, object] = {
        "settings": settings.to_json_dict(),
        "surroundings": surroundings(settings),
        "differential_privacy": _privacy(settings),
        "task": agreement.task,
        "classes": agreement.classes,
    }
    if settings.client_test:
        facts["client_metric"] = means_over_clients(agreement.task)
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
    round_log.write(tester.results())
    _log.info("%s", _privacy(settings))
    for node, reason in round_log.refusals().items():
        _log.warning("Participant %s took no part in some rounds: %s", node, reason)
    if not result.arrays:
        raise InstaHideError(
            "No round changed the network, so that nothing was learned.",
            "See the reasons in the log above.",
        )
    if out is not None:
        save_network(out / NETWORK, load(network.cpu(), result.arrays), agreement.card(settings))


def _privacy(settings: FederatedSettings) -> str:
    """The privacy statement of the run, as far as the server knows."""
    if settings.dp:
        return (
            f"Differential privacy: by DP-SGD, at delta = {settings.delta:g}; see each round. Its "
            "epsilon counts DP-SGD alone, and no encodings or plain training on the same images"
        )
    noise = bool(settings.encryption().noise)
    scope = ", but to the ledgers of the participants alone"
    return privacy_statement(None, noise=noise, scope=scope)


@contextmanager
def _new_folder(settings: FederatedSettings) -> Iterator[Path | None]:
    """The folder of the results, if the settings name one, which no other run writes to.

    Raises:
        InstaHideError: it holds results or a network already, or cannot be written.
    """
    if settings.out is None:
        yield None
        return
    folder = Path(settings.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InstaHideError(
            f"Cannot write {folder}: {error.strerror or error}.", "Choose another `out`."
        ) from error
    with only_process(folder):
        if any((folder / name).exists() for name in (RESULTS, NETWORK)):
            raise InstaHideError(f"{folder} holds results already.", "Choose another `out`.")
        yield folder
