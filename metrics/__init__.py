"""Metrics: how a reconstruction is compared with the image that was seen or imagined."""
