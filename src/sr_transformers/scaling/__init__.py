"""Scaling laws: forms, fits, intervals, comparison, prediction, figures. numpy and scipy only, no torch."""
