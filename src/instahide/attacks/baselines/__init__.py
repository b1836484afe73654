"""Published reconstruction attacks, to compare with."""
