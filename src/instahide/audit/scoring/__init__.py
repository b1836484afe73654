"""What reconstructions are worth, measured against the ground truth."""
