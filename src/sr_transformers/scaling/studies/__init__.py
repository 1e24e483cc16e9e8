"""Scaling studies: a grid of runs planned, estimated, trained, fitted and reported, and advice from a small one."""
