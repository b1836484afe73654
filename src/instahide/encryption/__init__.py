"""The paper's contribution: schemes, keys, kernels, and the encoder in which they meet."""
