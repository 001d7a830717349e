"""``lsms-rt predict``: images in; masks, overlays, montages, JSON, DICOM and NIfTI out.

``command`` holds the arguments and prints the answers, ``run`` processes the inputs, ``slices`` computes their slices,
``folder`` puts files into the output folder, ``lock`` keeps it to one run, ``journal`` records what is done, so that a
run can resume, ``masks`` reads what an earlier run wrote, ``outputs`` writes files of a whole series, ``summary`` and
``report`` compute and word what a run did.
"""
