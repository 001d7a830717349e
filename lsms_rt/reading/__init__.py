"""Read CT slices from DICOM, NIfTI, images, arrays; ``load`` chooses the reader."""
