"""The Flower server app: rounds, strategies, and checks of what clients reply."""
