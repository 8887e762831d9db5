"""The search for the smallest budget that keeps an answer right (arXiv 2412.18547, section 4.2)."""
