"""Single-shot detectors as reproducible PyTorch Lightning experiments."""

__version__ = "0.1.0"
