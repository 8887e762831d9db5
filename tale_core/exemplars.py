"""Worked examples by length, for the ``exemplars`` style; written for this project.

Lengths are the mean number of tokens of the solutions, counted by the tokenizer of the model that they were
measured on (Qwen2.5).
"""

from __future__ import annotations

LEVELS: dict[int, tuple[tuple[str, str], ...]] = {
    60: (
        (
            "A gardener plants 4 rows of 6 tulips and half as many roses. How many flowers is that?",
            "Tulips: 4 x 6 = 24. Roses: 24 / 2 = 12. Flowers: 24 + 12 = 36. Answer: 36",
        ),
    ),
}
