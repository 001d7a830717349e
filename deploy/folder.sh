#!/bin/sh
# Folder in, folder out: folder.sh INPUT OUTPUT SENTENCE [ENGINE].  MAP, XNAT and Flywheel run this (see *.json).
# Every DICOM series must be alone in INPUT; the results are a DICOM SEG, a report, masks and results.json.
set -eu
exec lsms-rt predict "${4:-demo}" "$1" --text "$3" --empty-seg --sr -o "$2"
