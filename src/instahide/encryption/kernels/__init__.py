"""The arithmetic of an encoding: a reference, a CPU kernel and a GPU kernel of one function."""
