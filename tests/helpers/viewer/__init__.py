"""What a PACS viewer shows of our files: Orthanc, OHIF and Chromium on this machine, and a command that checks them."""
