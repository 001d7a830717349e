"""Read CT images from DICOM files, datasets, folders, archives and DICOMDIRs; pydicom is imported when it is needed."""
