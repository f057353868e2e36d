"""Trains the miniature networks on simulated scenes; ``python -m nsdbench.pretraining --help``."""
