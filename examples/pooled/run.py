"""Three participants encrypt a third of the images each; a fourth process trains on all encodings.

    python examples/pooled/run.py --epochs 6 --copies 5

The script compares this with one participant who has all images (same scheme, copies and epochs),
and with plain training on all images and on one third. The last line of output is a JSON object
with accuracies in percent and the settings.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import trainings
from participants import publish
from rich.console import Console
from rich.table import Table

from instahide import open_split

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="fashion-mnist", help="a source with test images")
parser.add_argument("--images", type=int, help="number of training images (default: all)")
parser.add_argument("--copies", type=int, default=5, help="number of encodings of each image")
parser.add_argument("--epochs", type=int, default=6, help="number of passes over all encodings")
parser.add_argument("--by-class", action="store_true", help="give each only some of the classes")
parser.add_argument("--out", type=Path, help="CSV file to append a row to")
options = parser.parse_args()

train, test = open_split(options.data)
train = train.subset(slice(0, options.images))
figures = {name: value for name, value in vars(options).items() if name != "out"}
table = Table("trained on", "accuracy", title=f"{options.data}, {len(test):,} test images")
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    publish(folder, train, test, options.copies, by_class=options.by_class)
    for name, given in trainings.arguments(options.copies, options.epochs).items():
        results = trainings.results(folder, name, given)
        figures[name] = round(100 * results["metrics"]["accuracy"], 2)
        table.add_row(name.replace("_", " "), f"{figures[name]}%")
around = results["surroundings"]
figures |= {name: around["versions"][name] for name in ("instahide", "torch", "python")}
figures |= {name: around[name] for name in ("platform", "threads")}

if options.out:
    new = not options.out.exists()
    with options.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, figures)
        if new:
            writer.writeheader()
        writer.writerow(figures)
Console().print(table)
print(json.dumps(figures))
