"""Turns fetched files into what fits and runs read: compact betas, images at the sizes of models, feature targets."""
