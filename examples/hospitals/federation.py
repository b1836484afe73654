"""The three clinics of `run.py` train one network through Flower, on encodings of their own scans.

    python examples/hospitals/federation.py --folder clinics --rounds 10

A SuperLink and a SuperNode for each clinic run on this machine, with TLS. Every clinic sets its own
terms: what is read, how it is encrypted, and how often. It tests the network on its own plain test
scans. The last line of output is a JSON object with the results of the rounds.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from clinics import CLINICS, FINDINGS, Clinic, write_clinics
from run import SIDE

# The servers are those of the other example.
sys.path.append(str(Path(__file__).resolve().parents[1] / "federated"))
from deployment import Deployment
from servers import running


def terms(folder: Path, clinic: Clinic, rounds: int) -> dict[str, Any]:
    """The node config of a clinic."""
    return {
        "data": folder / "scans", "test": folder / "scans", "labels": folder / "labels.csv",
        "label-columns": ",".join(clinic.findings), "group-column": "patient",
        "split-column": "part", "window": clinic.window, "rescale": True,
        "size": SIDE, "scheme": "inside", "k": 2,
        # Of a patient with 25 scans, each in its own encoding and in those of others.
        "max-exposure": 100 * rounds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="working folder (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    # Treat SIGTERM like Ctrl-C, so that all processes are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running(options.folder or Path(temporary)) as servers,
    ):
        write_clinics(servers.folder)
        deployment = Deployment(servers)
        for clinic in CLINICS:
            deployment.admit(clinic.name)
            config = terms(servers.folder / clinic.name, clinic, options.rounds)
            deployment.start_node(clinic.name, config)
        deployment.wait_for(len(CLINICS))
        agreed = {
            "scheme": "inside", "k": 2, "model": "small-group", "rounds": options.rounds,
            "clients": len(CLINICS), "client-test": True, "federation-task": "multi-label",
            "test": "", "classes": ",".join(FINDINGS), "shape": f"1,{SIDE},{SIDE}",
            # Each clinic brings the values of its scanner to this range.
            "value-range": "0,1",
        }  # fmt: skip
        print(json.dumps(deployment.run(agreed, servers.folder / "out")))


if __name__ == "__main__":
    main()
