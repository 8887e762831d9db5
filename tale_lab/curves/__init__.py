"""Elasticity curves: what budgets really cost a model, and what they do to its answers."""
