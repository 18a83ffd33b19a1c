"""Evaluation: fresh networks are trained on a set by a named protocol. It never imports what makes a set.

Nothing is imported here, so that protocols can be named without torch.
"""
