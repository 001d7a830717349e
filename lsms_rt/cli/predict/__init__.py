"""``lsms-rt predict``: images in; masks, overlays, montages, JSON, DICOM and NIfTI out.

``command`` holds the arguments and prints the answers, ``jobs`` says what is asked, ``run`` processes the inputs,
``asking`` asks for the slices of one, ``slices`` computes them, ``folder`` puts files into the output folder, ``lock``
keeps it to one run, ``journal`` records what is done, so that a run can resume, ``masks`` reads what an earlier run
wrote, ``outputs`` writes files of a whole series, ``summary``, ``report`` and ``lines`` say what a run did.
"""
