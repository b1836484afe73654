"""Published reconstruction attacks, as baselines."""
