#!/bin/sh
# Folder in, folder out: folder.sh INPUT OUTPUT [SENTENCE [ENGINE]].  MAP, XNAT and Flywheel run this (see *.json).
# Without SENTENCE the variable LSMS_RT_SENTENCE holds it: what people write must not become part of a shell's line.
# Every DICOM series must be alone in INPUT; the results are a DICOM SEG, a report, masks and results.json.
set -eu
exec lsms-rt predict "${4:-demo}" "$1" --text="${3-$LSMS_RT_SENTENCE}" --empty-seg --sr -o "$2"
