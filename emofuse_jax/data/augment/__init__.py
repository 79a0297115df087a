"""Augments batches on the device: faces, spectrograms, mixup, modality dropout."""
