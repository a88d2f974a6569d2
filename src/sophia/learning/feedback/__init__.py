"""Reliability, calibration and limits of feedback sources."""
