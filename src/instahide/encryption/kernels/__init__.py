"""The arithmetic of an encoding: the same function three times."""
