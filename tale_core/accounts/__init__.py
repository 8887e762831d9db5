"""What calls cost: the ledger, token counts, and the exporters."""
