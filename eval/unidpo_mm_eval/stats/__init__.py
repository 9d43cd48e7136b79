"""How sure a number is, and whether two checkpoints differ: intervals and paired tests."""
