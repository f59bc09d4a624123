"""Scores: from answers to numbers that say how sure they are."""
