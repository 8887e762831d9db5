"""The method: estimate a budget, ask under it, see what the answer cost (arXiv 2412.18547, section 4)."""
