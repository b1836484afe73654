"""An audit's folder: results one by one, taken up again, and nothing else overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from instahide.attacks.base import no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.inverting import InvertingStatistics
from instahide.attacks.registry import registered
from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit.report.guarantees import privacy_sentence
from instahide.audit.report.html import make_report, write_report
from instahide.audit.report.schema import AttackResult
from instahide.audit.report.summary import summarize
from instahide.audit.report.thresholds import parse_threshold, summary
from instahide.audit.scenarios import scenarios
from instahide.audit.schedule import Task, tasks
from instahide.audit.session import NO_TIME, PICTURES, RESULTS, Session, facts, pending
from instahide.audit.target import MOST_ENCODINGS, AuditTarget, PublishedEncodings
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.privacy import epsilon_upper_bound
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import natural
from tests.audit.examples import recovered


def subject(count: int = 16, copies: int = 6, seed: int = 3) -> AuditTarget:
    images = ImageTable.from_arrays(natural(count, seed, 8), np.arange(count) % 4)
    return AuditTarget("here", "encodings", "somewhere", images, None, Scheme.inside(2), copies)


class Silent:
    def __init__(self) -> None:
        self.begun: list[str] = []

    def begins(self, number: int, task: Task, seconds: float) -> None:
        self.begun.append(task.attack)

    def goes_on(self, what: str, share: float) -> None: ...


@pytest.fixture(scope="module")
def attacker() -> Iterator[IsolatedRunner]:
    """One process for the attacks of all tests, because each new one imports PyTorch."""
    with IsolatedRunner() as runner:
        yield runner


def run(
    session: Session, wanted: Sequence[Task], attacker: IsolatedRunner, seconds: float = 3600.0
) -> list[str]:
    silent = Silent()
    for _ in session.run(wanted, registered().attacks, seconds, silent, attacker):
        pass
    return silent.begun


@pytest.mark.slow
def test_results_are_kept_one_by_one_and_not_made_again(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    wanted = tasks(["labels", "averaging", "averaging-absolute"], 6)
    session = Session.open(tmp_path / "audit", subject())
    results = session.run(wanted, registered().attacks, 3600.0, Silent())
    first = next(results)
    # Stopped here: what is done is on disk, and nothing else.
    results.close()  # type: ignore[attr-defined]
    assert session.done(wanted) == {wanted[0]: first}
    assert pending(wanted, [first]) == wanted[1:]
    again = Session.open(tmp_path / "audit", subject())
    assert run(again, wanted, attacker) == [task.attack for task in wanted[1:]]
    assert run(again, wanted, attacker) == []
    done = again.done(wanted)
    assert done[wanted[0]] == first
    assert [result.state for result in done.values()] == ["done"] * len(wanted)
    averaged = done[wanted[1]]
    assert len(averaged.pictures) == averaged.images
    assert sum(p.recognizable for p in averaged.pictures) == averaged.figures["images_recognizable"]
    likeness = [pair.ssim for pair in averaged.pictures]
    assert likeness == sorted(likeness, reverse=True)
    with Image.open(session.folder / PICTURES / averaged.pictures[0].original) as shown:
        assert shown.size == (8, 8)
    assert all(not result.pictures for task, result in done.items() if task.point)


@pytest.mark.slow
def test_what_ran_out_of_time_runs_again_with_more_of_it(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    (task,) = wanted = tasks(["labels"], 6)
    session = Session.open(tmp_path / "audit", subject())
    run(session, wanted, attacker)
    whole = session.done(wanted)[task]
    # A part of it was cut short, so that it ended before its time was over.
    short = {"out_of_time": True, "seconds": 4.5, "seconds_given": 5.0, "figures": {}}
    late = whole.model_copy(update=short)
    (session.folder / RESULTS / f"{task.file}.json").write_text(late.model_dump_json())

    def complete() -> bool:
        found = list(session.done(wanted).values())
        return make_report(
            session, wanted, found, broken={}, bounds=[], seconds=5.0, command=""
        ).complete

    # Hardly more time than it had before, beside what it has used.
    assert run(session, wanted, attacker, seconds=9.9) == []
    assert session.done(wanted)[task] == late
    assert not complete()
    assert run(session, wanted, attacker, seconds=60.0) == ["labels"]
    again = session.done(wanted)[task]
    assert (again.state, again.out_of_time) == ("done", False)
    assert again.figures.keys() == whole.figures.keys()
    assert complete()
    assert run(session, wanted, attacker) == []


def test_without_time_nothing_begins_and_the_report_says_so(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    wanted = tasks(["labels", "reconstruction"], 6)
    session = Session.open(tmp_path / "audit", subject())
    assert run(session, wanted, attacker, seconds=0.5) == []
    report = make_report(
        session, wanted, [], broken={"theirs": "ImportError"}, bounds=[], seconds=0.5, command=""
    )
    write_report(report, session.folder)
    assert not report.complete
    assert report.verdict[0].startswith(
        "This audit is incomplete: 1 attack could not be loaded (theirs), 2 attacks ran out of "
        "time (labels, reconstruction)."
    )
    assert report.untried["labels"] == NO_TIME
    assert report.untried["theirs"] == "ImportError"


@pytest.mark.parametrize(("name", "counts"), [("strong", True), ("carlini", False)])
def test_an_attack_that_could_not_be_loaded_makes_an_audit_incomplete(
    tmp_path: Path, name: str, counts: bool
) -> None:
    broken = registered([EntryPoint(name, "no_such_package:Attack", "instahide.attacks")]).broken
    session = Session.open(tmp_path / "audit", subject())
    report = make_report(
        session, [], [recovered(1)], broken=broken, seconds=5.0, command="",
        bounds=[parse_threshold("recovered>0.5", ()), parse_threshold("ssim<0.1", ())],
    )  # fmt: skip
    # Those that run only if they are named were not to run.
    assert report.complete is not counts
    assert [bound.violated for bound in report.thresholds] == [counts, False]
    assert report.thresholds[0].unchecked == (list(broken) if counts else [])
    assert report.verdict[0].startswith("This audit is incomplete") is counts
    assert set(broken) < set(report.untried)


def test_a_refusal_says_what_is_missing_where_most_is_granted(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    session = Session.open(tmp_path / "audit", subject())
    (task,) = wanted = tasks(["statistics"], 6)
    run(session, wanted, attacker)
    # Not that it is unknown which encodings are of one image: it is granted after all.
    result = session.done(wanted)[task]
    assert (result.state, result.reason) == (
        "not tried", "There are fewer than 8 encodings of an image."
    )  # fmt: skip


def test_an_audit_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    Session.open(tmp_path / "audit", subject())
    before = (tmp_path / "audit/audit.json").read_bytes()
    others = [subject(seed=4), subject(copies=7), replace(subject(), encoder=Scheme.inside(3))]
    for other in others:
        with pytest.raises(InstaHideError, match="something else"):
            Session.open(tmp_path / "audit", other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "file").touch()
    for taken in ("full", "file", "file/below"):
        with pytest.raises(InstaHideError):
            Session.open(tmp_path / taken, subject())
    assert (tmp_path / "audit/audit.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "file", "full"]


def whole_target(seed: int = 0) -> AuditTarget:
    """A target with all that attacks may depend on; the same for the same seed."""
    torch.manual_seed(seed)
    return replace(
        subject(),
        encoder=Scheme.cross(4),
        public=ImageTable.from_arrays(natural(40, 4 + seed, 8)),
        others=ImageTable.from_arrays(natural(16, 90 + seed, 8), np.arange(16) % 4),
        network=nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)),
        published=PublishedEncodings(torch.randn(96, 3, 8, 8), torch.rand(96, 4)),
    )


def changed_targets() -> dict[str, AuditTarget]:
    """Targets that differ from `whole_target` in one thing, by what the refusal calls it."""
    whole, other = whole_target(), whole_target(1)
    images, published, network = whole.images, whole.published, whole_target().network
    assert published is not None
    assert isinstance(network, nn.Sequential)
    network[2].running_mean += 1.0
    last = nn.Sequential(*network[:2])
    relabeled = replace(images, labels=(images.labels + 1) % 4)
    unlabeled = replace(published, labels=None)
    return {
        "private images": replace(whole, images=relabeled),
        "public images": replace(whole, public=other.public),
        "other images": replace(whole, others=other.others),
        "trained network": replace(whole, network=other.network),
        "published encodings": replace(whole, published=other.published),
    } | {
        f"{what} {number}": replace(whole, **{name: value})
        for what, name, values in (
            ("other images", "others", [None]),
            ("trained network", "network", [None, network, last]),
            ("published encodings", "published", [None, unlabeled]),
        )
        for number, value in enumerate(values)
    }


@pytest.mark.parametrize("name", changed_targets())
def test_an_audit_is_resumed_with_all_that_its_results_depend_on(tmp_path: Path, name: str) -> None:
    folder = Session.open(tmp_path / "audit", whole_target()).folder
    Session.open(
        folder, replace(whole_target(), name="moved", source="copied", settings={"a": "b"})
    )
    with pytest.raises(
        InstaHideError, match=rf"\({name.rstrip('0123456789 ')} differ\)"
    ) as refused:
        Session.open(folder, changed_targets()[name])
    assert "another folder" in refused.value.remedy


@pytest.mark.parametrize("changed", [{"format": 1}, {"version of instahide": "0.0"}])
def test_an_audit_of_another_version_is_not_mixed_with_this_one(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    folder = Session.open(tmp_path / "audit", subject()).folder
    kept = json.loads((folder / "audit.json").read_text()) | changed
    (folder / "audit.json").write_text(json.dumps(kept))
    with pytest.raises(InstaHideError, match="another version"):
        Session.open(folder, subject())


def test_a_damaged_result_is_refused_by_name(tmp_path: Path) -> None:
    session = Session.open(tmp_path / "audit", subject())
    (task,) = tasks(["labels"], 6)
    (session.folder / RESULTS / f"{task.file}.json").write_text("{")
    with pytest.raises(InstaHideError, match=f"{task.file}.json is damaged"):
        session.done([task])


def test_what_is_written_of_the_subject_is_public(tmp_path: Path) -> None:
    session = Session.open(tmp_path / "audit", subject())
    kept = json.loads((session.folder / "audit.json").read_text())
    assert set(kept) == {
        "format", "version of instahide", "private images", "public images", "other images",
        "trained network", "published encodings", *facts(subject()).model_dump(),
    } - {"name", "source", "settings"}  # fmt: skip


def test_the_guarantee_is_that_of_publishing() -> None:
    assert facts(subject()).epsilon is None
    noisy = replace(subject(), encoder=replace(Scheme.inside(2), noise=30.0))
    images = noisy.images
    expected = epsilon_upper_bound(noisy.scheme, images.shape, images.std, copies=6)
    assert facts(noisy).epsilon == pytest.approx(expected)
    assert expected > 0
    loss, floor = facts(noisy).loss, facts(noisy).error_floor
    assert loss is not None
    assert floor == pytest.approx(images.pixels[0].size / loss)
    assert (facts(subject()).loss, facts(subject()).error_floor) == (None, None)
    assert facts(noisy).prior_statement is None
    pool = ImageTable.from_arrays(natural(40, 4, 8))
    said = facts(replace(noisy, encoder=Scheme.cross(4, noise=30.0), public=pool)).prior_statement
    assert said is not None
    assert "any reconstruction from this folder alone, on average over" in said
    assert "rests on a prior estimated from them" in said


def test_private_images_in_the_public_pool_have_no_bound() -> None:
    private, other = subject().images, ImageTable.from_arrays(natural(40, 4, 8))
    pools = [
        ImageTable.from_arrays(np.concatenate([other.pixels, added]))
        for added in (other.pixels[:0], private.pixels[:1], private.pixels)
    ]
    scheme = Scheme.cross(4, noise=30.0)
    apart, one, all_of_them = (replace(subject(), encoder=scheme, public=pool) for pool in pools)
    assert facts(apart).epsilon is not None
    assert (facts(apart).uneven, apart.exposures) == (None, 12)
    for target in (one, all_of_them):
        about = facts(target)
        assert (about.epsilon, about.loss, about.error_floor) == (None, None, None)
        assert target.prior_statement is None
        assert "as the public pool holds private images; the ledger has it" in privacy_sentence(
            about
        )
    encoder = Encoder(scheme, private, pools[2])
    for _ in range(all_of_them.copies):
        encoder.encode(np.arange(len(private)))
    assert 12 < one.exposures < 0.95 * encoder.exposure.counts.mean() < all_of_them.exposures


def test_a_missing_bound_says_why() -> None:
    noisy = replace(subject(), encoder=Scheme.inside(2, noise=30.0))
    images = noisy.images
    assert facts(noisy).uneven is None
    for changed, why in (
        (replace(noisy, limited=True), "more encodings than others"),
        (replace(noisy, images=images.subset(np.r_[0, : len(images)])), "there twice"),
    ):
        about = facts(changed)
        assert about.epsilon is None
        assert about.uneven is not None
        assert why in about.uneven
        assert f"{about.uneven}; the ledger has it" in privacy_sentence(about)


def test_a_rehearsal_is_a_share_that_attacks_get_through() -> None:
    large = subject(count=400, copies=300)
    images, copies = large.known_key_target()
    assert (len(images), copies) == (100, 50)
    assert len(images) * copies <= MOST_ENCODINGS
    small, copies = subject().known_key_target()
    assert (len(small), copies) == (16, 6)
    assert subject().exposures == 12


def test_fewer_images_than_a_mix_needs_are_refused() -> None:
    with pytest.raises(InstaHideError, match="holds 1 images"):
        subject(count=1)


def test_a_result_can_be_read_back() -> None:
    first = AttackResult.model_validate_json(
        '{"attack": "a", "title": "t", "paper": "p", "on": "rehearsal", "images": 1, '
        '"encodings_per_image": 1, "grants": [], "state": "done"}'
    )
    assert AttackResult.model_validate(first.model_dump()) == first


@pytest.mark.slow
def test_the_scorer_adds_the_ceiling_of_a_reconstruction(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    session = Session.open(tmp_path / "audit", subject())
    wanted = tasks(["reconstruction", "averaging"], 6, 6)
    run(session, wanted, attacker)
    done = session.done(wanted)
    for task, result in done.items():
        assert (result.ceiling is not None) == (
            task.attack == "reconstruction" and task.on == "rehearsal"
        )
    result = done[Task("reconstruction", 6)]
    ceiling, found = result.ceiling, result.figures["images_recognizable"]
    assert ceiling is not None
    assert found is not None
    assert ceiling.images_sought == 16
    assert ceiling.images_recognizable == found + ceiling.not_found >= found
    assert ceiling.images_recognizable + ceiling.not_enough_information == 16


@pytest.mark.slow
def test_there_is_a_ceiling_where_the_attack_does_not_begin(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    images = ImageTable.from_arrays(natural(16, 3, 8), np.arange(16) % 4)
    public = ImageTable.from_arrays(natural(50, 4, 8))
    scheme = Scheme.cross(2, private_k=1)
    alone = AuditTarget("here", "encodings", "somewhere", images, public, scheme, 1)
    wanted = tasks(["reconstruction"], 1)
    session = Session.open(tmp_path / "audit", alone)
    run(session, wanted, attacker)
    refused = session.done(wanted)[Task("reconstruction", 1)]
    assert refused.state == "not tried"
    assert refused.ceiling is not None
    assert refused.ceiling.not_found == refused.ceiling.images_recognizable


def test_encodings_that_fill_the_memory_have_no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    (scene, *_) = scenarios(subject(), Task("reconstruction", 6))
    assert scene.ceiling(None) is not None
    monkeypatch.setattr("instahide.audit.scenarios.MOST_VALUES", 1000)
    assert scene.ceiling(None) is None


@pytest.mark.slow
def test_gradients_are_inverted_for_what_a_participant_would_send(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    session = Session.open(tmp_path / "audit", subject())
    wanted = tasks(["dlg", "inverting-statistics"], 6)
    assert run(session, wanted, attacker) == [
        "dlg",
        "dlg",
        "inverting-statistics",
        "inverting-statistics",
    ]
    sent, plain, *statistics = (session.done(wanted)[task] for task in wanted)
    assert [(result.state, bool(result.reason)) for result in statistics] == [
        ("not tried", True)
    ] * 2
    for inverted, recognizable in ((sent, 0), (plain, 1)):
        assert (inverted.state, inverted.images) == ("done", 1)
        assert inverted.figures["images_sought"] == 1
        # Either comes back; what the mask hides in an encoding does not.
        assert (inverted.figures["encoding_psnr_mean"] or 0) > 25
        assert inverted.figures["images_recognizable"] == recognizable
        assert [pair.recognizable for pair in inverted.pictures] == [bool(recognizable)]
    assert "untrained network and its gradient on one encoding" in sent.grants[0]
    assert plain.grants[0].endswith("on one image")


def test_batch_norm_statistics_are_those_of_the_network_that_a_run_has_trained() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )
    network(torch.randn(8, 3, 8, 8))
    (task, _) = tasks(["inverting-statistics"], 6)
    untrained, trained = scenarios(replace(subject(), network=network.eval()), task)
    assert InvertingStatistics().applies(untrained.observation)
    assert InvertingStatistics().applies(trained.observation) is None
    assert trained.grants == ["the trained network and its gradient on one encoding"]
    found = InvertingStatistics(iterations=20, starts=1).run(
        trained.observation, Budget(), no_progress
    )
    assert trained.score(found)[0]["images_sought"] == 1


@pytest.mark.slow
def test_all_updates_of_a_participant_are_attacked_and_summed_up(
    tmp_path: Path, attacker: IsolatedRunner
) -> None:
    session = Session.open(tmp_path / "audit", subject())
    wanted = tasks(["federated"], 6)
    assert run(session, wanted, attacker) == ["federated", "federated"]
    results = session.done(wanted)
    for task in wanted:
        result = results[task]
        assert result.state == "done", result.reason
        sent = result.figures["encodings_sent"]
        assert sent is not None
        assert 80 <= sent <= 96
        assert result.figures["encodings_recovered"] == sent
        assert result.figures["images_sought"] == 16
    verdict = " ".join(summarize(list(results.values()), facts(session.subject)))
    assert "From all gradients (FedSGD) of one participant" in verdict
    assert "From all changes of the weights (FedAvg) of one participant" in verdict
    assert "96 of 96 encodings" in verdict
    # Only participants of a federation send updates.
    assert summary(list(results.values()))["recovered"] is None
