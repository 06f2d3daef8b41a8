"""Kernels on sound that no package brings: resampling, spectrograms, cepstra, onsets."""
