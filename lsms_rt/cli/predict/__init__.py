"""What ``lsms-rt predict`` does: files and folders in; masks, pictures, tables and DICOM out.

``run`` goes through the inputs; ``journal`` remembers what is done; ``volume``, ``montage`` and ``words`` sum up.
"""
