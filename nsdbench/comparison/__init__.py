"""What stands behind ``nsdbench.compare``: finding results, deciding what may stand together, and showing it as tables."""
