"""A callback for PyTorch Lightning."""

from instahide.integrations.lightning.callback import InstaHideCallback

__all__ = ["InstaHideCallback"]
