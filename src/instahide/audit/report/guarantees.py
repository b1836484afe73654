"""The sentences of a report on what holds against attacks that nobody tried."""

from __future__ import annotations

from instahide.audit.report.schema import Facts
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
        f"{said} All this is for the pixels of one image, also against an attacker who knows the "
        f"label and the partners of the image. {holds} against any attack. A smaller epsilon is a "
        "stronger guarantee; above 10 the guarantee is almost meaningless."
    )


def guarantee_statements(facts: Facts) -> str:
    """Return the sentences on guarantees."""
    if facts.encoder != "instahide":
        return _statement_of_encoder(facts)
    found = Guarantees(
        bool(facts.scheme.get("noise")), facts.epsilon, facts.error_floor, facts.loss, facts.delta,
        CHANCE,
    )  # fmt: skip
    scope = "; the ledger has it" if facts.epsilon is None else ""
    statements = found.statements(scope=scope, at_most=True)
    if facts.prior_statement is not None:
        statements["error_floor_with_a_prior"] = facts.prior_statement
    return " ".join(f"{statement}." for statement in statements.values())


def _statement_of_encoder(facts: Facts) -> str:
    """Return the sentence on differential privacy, the only guarantee of other encoders."""
    if facts.epsilon is None:
        return f"Differential privacy: no guarantee of the encoder {facts.encoder} is known here."
    return f"{privacy_statement(facts.epsilon, facts.delta, noise=True, scope=', at most')}."
