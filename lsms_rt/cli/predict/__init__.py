"""``lsms-rt predict``: images in; masks, overlays, montages, JSON, DICOM and NIfTI out.

``command`` holds the arguments and prints the answers, ``run`` processes the inputs, ``journal`` records finished
slices so that a run can resume, ``outputs`` writes files of a whole series, ``summary`` computes and words the report.
"""
