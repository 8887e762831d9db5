"""What TALE knows about models: their names, their reasoning controls, and what their replies mean."""
