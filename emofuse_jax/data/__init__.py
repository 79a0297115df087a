"""Reads records and makes batches: records, dataset, sampler, pipeline, augmentation; writes records."""
