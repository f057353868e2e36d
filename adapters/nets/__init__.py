"""Networks of the decoders, at the published and at miniature size."""
