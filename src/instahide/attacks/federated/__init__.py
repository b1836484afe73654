"""The attack on all updates of a participant of a federation: `attack`, on an `observation`."""
