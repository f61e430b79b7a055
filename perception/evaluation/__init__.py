"""Metrics: registered with MMEngine, or plain functions."""
