"""Scaling studies: plan a grid of runs, estimate, train, fit, advise, report. Built on training and scaling."""
