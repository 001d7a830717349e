"""A run: images and sentences in; masks, montages, JSON, DICOM and NIfTI out.  The command line and the server run it.

``jobs`` says what is asked, ``run`` processes the inputs, ``asking`` asks for the slices of one, ``slices`` computes
them, ``folder`` puts files into the output folder, ``lock`` keeps it to one run, ``journal`` records what is done, so
that a run can resume, ``masks`` reads what an earlier run wrote, ``outputs`` writes files of a whole series,
``summary`` and ``report`` say what a run did, ``about`` which input a logged message is about.
"""
