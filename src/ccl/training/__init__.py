"""The LightningModule that trains both streams, its optimizer, and sharding."""
