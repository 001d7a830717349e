"""Hostile files for the readers and engines: seeds, mutations, a harness that judges, and a command that counts."""
