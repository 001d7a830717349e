"""Accuracy of an engine on the sentences of a data set: ``evaluate`` predicts, the others look at the answers."""
