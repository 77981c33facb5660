"""Scores of text and of code: `score` computes all that fit a pair of texts, with one module for each metric."""
