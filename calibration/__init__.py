"""Calibration of INT8 engines: activation ranges, the search for INT8 layers, and the accuracy gate.

``lsms-rt calibrate`` (``calibrate.py``) measures ranges (``ranges.py``) and the effect of every layer alone
(``sensitivity.py``), searches for the largest set of INT8 layers within an accuracy budget (``search.py``) and writes a
recipe (``recipe.py``).  ``candidate.py`` runs an engine with a set of layers in INT8.  ``gate.py`` compares a built
engine with its reference, by ``statistics.py`` and ``policy.py``; ``report.py`` and ``pictures.py`` present the result.
"""
