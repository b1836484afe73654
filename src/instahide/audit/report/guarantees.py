"""The sentences of a report on what holds against attacks that nobody tried."""

from __future__ import annotations

from instahide.audit.report.schema import Facts
from instahide.audit.target import CALLED
from instahide.encryption.guarantees.statements import CHANCE, Guarantees
from instahide.encryption.privacy import privacy_statement


def privacy_sentence(facts: Facts) -> str:
    """Return a paragraph on what noise guarantees for the published encodings."""
    said = guarantee_statements(facts)
    if facts.epsilon is None:
        return f"There is no guarantee against attacks that were not tried. {said}"
    both = "Differential privacy and reconstruction robustness hold"
    holds = both if facts.encoder == "instahide" else "Differential privacy holds"
    return (
        f"{said} {_alone(facts)} All this is for the pixels of one image, also against an attacker "
        f"who knows the label and the partners of the image. {holds} against any attack. A smaller "
        "epsilon is a stronger guarantee; above 10 the guarantee is almost meaningless."
    )


def _alone(facts: Facts) -> str:
    """Return a sentence that says what else the guarantee does not count."""
    return (
        f"The guarantee counts the encodings of this {CALLED[facts.kind]} alone. If other "
        "folders or runs have encodings of these images too, it is weaker: `instahide ledger` has "
        "the total."
    )


def guarantee_statements(facts: Facts) -> str:
    """Return the sentences on guarantees."""
    if facts.encoder != "instahide":
        return _statement_of_encoder(facts)
    found = Guarantees(
        bool(facts.scheme.get("noise")), facts.epsilon, facts.error_floor, facts.loss, facts.delta,
        CHANCE,
    )  # fmt: skip
    why = f", {facts.uneven}" if facts.uneven else ""
    scope = f"{why}; the ledger has it" if facts.epsilon is None else _scope(facts)
    statements = found.statements(scope=scope, at_most=True)
    if facts.prior_statement is not None:
        statements["error_floor_with_a_prior"] = facts.prior_statement
    return " ".join(f"{statement}." for statement in statements.values())


def _statement_of_encoder(facts: Facts) -> str:
    """Return the sentence on differential privacy, the only guarantee of other encoders."""
    if facts.epsilon is None:
        return f"Differential privacy: no guarantee of the encoder {facts.encoder} is known here."
    scope = f", at most{_scope(facts)}"
    return f"{privacy_statement(facts.epsilon, facts.delta, noise=True, scope=scope)}."


def _scope(facts: Facts) -> str:
    return f", by this {CALLED[facts.kind]} alone"
