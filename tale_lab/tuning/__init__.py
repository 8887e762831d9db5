"""Tuning: strategies raced on a sample of questions, and the calibration that is written."""
