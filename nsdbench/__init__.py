"""nsdbench: a benchmark of fMRI-to-image decoders on seen (NSD) and imagined (NSD-Imagery) images."""

__version__ = "0.1.0"
