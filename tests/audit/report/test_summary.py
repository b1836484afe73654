"""What a verdict says, and never says."""

from __future__ import annotations

from typing import Any

import pytest

from instahide.audit.report.schema import AttackResult
from instahide.audit.report.summary import (
    LIMITS,
    duration,
    finding,
    privacy_sentence,
    shortfall,
    summarize,
)
from instahide.audit.schedule import Task
from tests.audit.examples import FACTS, recovered, result


def test_what_came_back_and_what_it_cost_stand_first() -> None:
    done = [recovered(12), recovered(92, attack="reconstruction", seconds=120.0)]
    said = summarize(done, FACTS)
    assert said[0] == (
        "Of 100 images, each encrypted 30 times for this audit, 92 were recovered recognizably, by "
        "the attack “reconstruction” in 2 minutes."
    )
    assert said[-1] == LIMITS
    assert "100 of 200 images" in said[-2]


def test_an_image_that_came_back_often_need_be_recognised_but_once() -> None:
    often = recovered(92)
    figures = often.figures | {"images_recovered": 3000.0}
    assert "recognizably at least once" in summarize([recovered(92, figures=figures)], FACTS)[0]
    assert "at least once" not in summarize([often], FACTS)[0]


def test_the_worse_of_rehearsal_and_publication_stands_first() -> None:
    published = recovered(99, on="published")
    said = summarize([recovered(50), published], FACTS)[0]
    assert said.startswith("Of the 100 images in the published encodings")
    assert summarize([recovered(100), published], FACTS)[0].startswith("Of 100 images")


NONE = "No attack that recovers images from encodings ran to completion."


def test_nothing_recovered_is_said_with_what_was_tried_and_no_more() -> None:
    said = summarize([recovered(0, absolute=True), recovered(7, point=True)], FACTS)
    none = "none was recovered recognizably by the attacks that ran (averaging; 2 seconds in total)"
    assert none in said[0]
    assert summarize([], FACTS)[0] == NONE
    failed = recovered(9, state="failed")
    assert summarize([failed], FACTS)[0].endswith(f" {NONE}")


def test_a_generator_that_was_found_is_worse_than_anything() -> None:
    found = result("seed-search", figures={"found": 1.0})
    assert "can be computed" in summarize([recovered(100), found], FACTS)[0]
    none = result("seed-search", figures={"found": 0.0})
    assert "can be computed" not in " ".join(summarize([recovered(100), none], FACTS))


@pytest.mark.parametrize(
    ("attack", "figures", "words"),
    [
        ("labels", {"class_sets_right": 1.0}, "in 100% of the mixes"),
        ("labels", {"class_sets_right": 0.999}, "in more than 99% of the mixes"),
        ("public-search", {"public_found": 0.001}, "found less than 1% of"),
        ("membership", {"membership_auc": 0.75}, "75% of the time"),
        ("statistics", {"values_p": 0.5, "other": 0.0}, "did not distinguish"),
        ("statistics", {"values_p": 0.5, "distances_p": 1e-9}, "p = 1e-09"),
        ("seed-search", {"found": 0.0}, "none produces the keys"),
        ("foreign", {"anything": 1.0}, ""),
    ],
)
def test_findings(attack: str, figures: dict[str, float], words: str) -> None:
    said = finding(result(attack, figures=figures))
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "less than a second"), (1.0, "1 second"), (80, "80 seconds"), (90, "2 minutes"),
        (600, "10 minutes"), (5400, "2 hours"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def from_rounds(encodings: float, images: float, **changes: Any) -> AttackResult:
    figures = {
        "encodings_recovered": encodings, "encodings_sent": 1000.0, "images_recognizable": images,
        "images_sought": 20.0, "ssim_mean": 0.5,
    }  # fmt: skip
    return result("federated", on="fedavg", figures=figures, **changes)


def test_of_all_updates_it_says_which_step_failed() -> None:
    few, rough, all_of_them = from_rounds(1000, 5), from_rounds(300, 0), from_rounds(1000, 20)
    assert "1,000 of 1,000 encodings, and from these 5 of 20 private images" in finding(few)
    assert finding(few).endswith("The reconstruction missed the others.")
    assert finding(rough).endswith("The inversion of the updates limits this result.")
    assert finding(all_of_them).endswith("recognizably.")
    assert any(said == finding(few) for said in summarize([recovered(1), few], FACTS))


def test_an_update_has_a_sentence_of_its_own() -> None:
    # DLG finds the label, too; that is not what labels alone say.
    found = {"encoding_psnr_mean": 50.4, "class_sets_right": 1.0}
    figures = recovered(0, total=1).figures | found
    masked = recovered(0, attack="dlg", on="update", images=1, figures=figures)
    said = summarize([recovered(12), masked], FACTS)
    assert said[0].startswith("Of 100 images")
    assert [sentence for sentence in said if "gradient" in sentence] == [finding(masked)]
    assert not any("labels alone" in sentence for sentence in said)
    assert finding(masked) == (
        "One encoding was recovered from its gradient, which the server of a federation receives "
        "(PSNR 50 dB, by the attack “dlg”). The private image is not recognizable in the result."
    )
    bare = recovered(1, total=1, on="update", figures=figures | {"images_recognizable": 1.0})
    assert finding(bare).endswith("The private image is recognizable in the result.")
    failed = recovered(0, on="update", figures=figures | {"encoding_psnr_mean": 9.0})
    assert finding(failed).startswith("One encoding was not recovered from its gradient")
    assert "(PSNR 9 dB" in finding(failed)
    plain = bare.model_copy(update={"on": "plain update"})
    assert finding(plain) == (
        "For comparison, the image is recognizable in what was recovered from the gradient of the "
        "plain image (PSNR 50 dB, by the attack “averaging”)."
    )
    assert f"{finding(failed)} {finding(plain)}" in summarize([failed, plain], FACTS)
    # An update is no rehearsal, and what came of it stands for none.
    assert summarize([plain], FACTS)[0] == NONE


def test_what_noise_guarantees_is_said_and_that_without_it_nothing_is() -> None:
    none = "Differential privacy: none (no noise added)."
    assert privacy_sentence(FACTS).startswith("There is no guarantee")
    assert none in privacy_sentence(FACTS)
    for name in ("Error floor", "Reconstruction robustness"):
        assert f"{name}: none (no noise added)." in privacy_sentence(FACTS)
    assert any(sentence.startswith(none) for sentence in summarize([recovered(92)], FACTS))
    assert all("guarantee" not in sentence for sentence in summarize([recovered(92)], FACTS))
    limited = FACTS.model_copy(update={"scheme": {"noise": 2.0}})
    assert "Differential privacy: not known here" in privacy_sentence(limited)
    assert "Error floor: not known here; the ledger has it." in privacy_sentence(limited)
    figures = {"epsilon": 3.14159, "loss": 1.0, "error_floor": 0.0123, "prior_statement": "A floor"}
    noisy = FACTS.model_copy(update={**figures, "scheme": {"noise": 2.0}})
    said = summarize([recovered(0)], noisy)[-2]
    assert said == privacy_sentence(noisy)
    assert "epsilon = 3.15 at delta = 1e-05, at most" in said
    assert "Error floor: mean squared error of at least 0.0123, so PSNR of at most 19.2 dB" in said
    assert "Reconstruction robustness: an attack that succeeds in 0.1% of cases" in said
    assert "A floor." in said


@pytest.mark.parametrize(("kind", "called"), [("encodings", "folder"), ("run", "run")])
@pytest.mark.parametrize("encoder", ["instahide", "dp-instahide"])
def test_a_guarantee_is_that_of_this_folder_or_run_alone(
    kind: str, called: str, encoder: str
) -> None:
    known = {"epsilon": 3.14159, "loss": 1.0, "error_floor": 0.0123, "scheme": {"noise": 2.0}}
    said = privacy_sentence(FACTS.model_copy(update={**known, "kind": kind, "encoder": encoder}))
    statements, rest = said.split(f"The guarantee counts the encodings of this {called} alone. ")
    assert statements.count(f", by this {called} alone.") == (3 if encoder == "instahide" else 1)
    assert "`instahide ledger` has the total." in rest


def first(*results: AttackResult, **more: Any) -> str:
    """The first sentence of all."""
    return summarize(results, FACTS, **more)[0].partition(". ")[0]


def test_the_first_sentence_says_what_failed_and_what_had_no_time() -> None:
    best = recovered(92)
    assert first(best).startswith("Of 100 images")
    broken = result("foreign", state="failed", reason="ValueError")
    assert first(best, broken) == (
        "This audit is incomplete: 1 attack failed with an error (foreign)"
    )
    # A generator that was found is the worst of findings; that something failed is said before.
    found = result("seed-search", figures={"found": 1.0})
    assert first(best, broken, found).startswith("This audit is incomplete")
    late = [
        recovered(3, attack="demixing", out_of_time=True),
        result("stuck", state="failed", reason="It was stopped.", out_of_time=True),
    ]
    waiting = [Task("dlg", 1, "update"), Task("dlg", 1, "plain update")]
    assert first(best, broken, *late, waiting=waiting, broken=["theirs"]) == (
        "This audit is incomplete: 1 attack could not be loaded (theirs), 1 attack failed with an "
        "error (foreign), 3 attacks ran out of time (demixing, dlg, stuck)"
    )
    # What was found stands beside it.
    assert "92 were recovered recognizably" in summarize([best, broken], FACTS)[0]


def test_what_ends_by_its_time_alone_and_points_of_curves_are_not_missing() -> None:
    endless = result("seed-search", out_of_time=True)
    point = recovered(9, point=True, out_of_time=True)
    waiting = [Task("averaging", 2, point=True)]
    assert first(recovered(92), endless, point, waiting=waiting).startswith("Of 100 images")
    # An error is one wherever it happens.
    assert "failed with an error" in first(recovered(92), recovered(0, point=True, state="failed"))


def test_an_encoding_comes_back_only_if_it_is_nearer_than_a_blank_picture() -> None:
    """The mix of flat images is flat itself: a blank picture is near to it."""
    figures = {"encoding_psnr_mean": 40.0, "of_blank_psnr_mean": 38.0}
    flat = result("dlg", on="update", images=1, figures=figures)
    assert finding(flat).startswith("One encoding was not recovered")
    exact = result("dlg", on="update", images=1, figures=figures | {"encoding_psnr_mean": 60.0})
    assert finding(exact).startswith("One encoding was recovered")


def missed(found: int, ceiling: int, total: int = 100, **changes: Any) -> AttackResult:
    """A reconstruction that recovered ``found`` images, where the ceiling is so high."""
    limits = {
        "images_recognizable": ceiling, "images_sought": total, "ssim_mean": 0.8,
        "not_found": ceiling - found, "not_enough_information": total - ceiling,
    }  # fmt: skip
    return recovered(found, total, **{"attack": "reconstruction", "ceiling": limits} | changes)


NOT_FOUND = (
    "of them, which its recovery reaches from a start at the true images: a better attack may "
    "recover them."
)
NO_INFORMATION = (
    "of them there is not enough information: its recovery loses them even from a start at the "
    "true images."
)


def test_a_failure_is_split_into_not_found_and_not_enough_information() -> None:
    assert shortfall(missed(40, 90)) == (
        "The attack “reconstruction” missed 60 of 100 images. "
        f"This attack did not find 50 {NOT_FOUND} For 10 {NO_INFORMATION}"
    )
    assert shortfall(missed(0, 100)) == (
        f"The attack “reconstruction” missed 100 of 100 images. This attack did not find 100 "
        f"{NOT_FOUND}"
    )
    assert shortfall(missed(40, 40)) == (
        f"The attack “reconstruction” missed 60 of 100 images. For 60 {NO_INFORMATION}"
    )
    assert shortfall(missed(100, 100)) == shortfall(recovered(3)) == ""


def test_a_setting_is_said_to_resist_only_where_the_ceiling_is_low_too() -> None:
    resisting = "This setting resists this attack."
    assert shortfall(missed(0, 3)).endswith(resisting)
    late = missed(0, 3, out_of_time=True)
    assert "missed 100 of 100 images when its time was over." in shortfall(late)
    refused = missed(0, 3, state="not tried")
    for other in (missed(0, 90), missed(0, 6), missed(90, 90), refused, late):
        assert resisting not in shortfall(other)


def test_the_verdict_says_which_of_the_two_it_is() -> None:
    result = missed(40, 90)
    said = summarize([recovered(12), result, missed(0, 50, point=True)], FACTS)
    assert said[1] == shortfall(result)
    assert sum("start at the true images" in sentence for sentence in said) == 1
    # An attack that could not be started may still have something to find.
    refused = missed(
        0, 57, state="not tried", reason="Every private image is in a single encoding."
    )
    assert shortfall(refused) in summarize([recovered(0), refused], FACTS)
    assert shortfall(refused).startswith(
        "The attack “reconstruction” gave no result on 100 images. Its recovery reaches 57 of them "
        "from a start at the true images"
    )
