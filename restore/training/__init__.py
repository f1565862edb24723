"""Training: pictures, patches, the loop, its checkpoints. Needs albumentations; restoring does not."""
