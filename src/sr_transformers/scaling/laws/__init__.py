"""Scaling laws: forms, fits, intervals, model selection, prediction, figures. numpy and scipy only, no torch."""
