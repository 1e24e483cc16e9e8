"""Scaling laws: laws/ fits them and needs no torch, studies/ makes the runs that they are fitted to."""
