"""Decoders: each adapter turns betas into images behind one contract (:class:`nsdbench.adapters.base.Adapter`)."""
