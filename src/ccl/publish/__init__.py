"""Models on the hub: what of a run goes there, its card, and the upload.

A model folder is what `ccl.load` reads there (ccl.storage.hub). huggingface_hub's PyTorchModelHubMixin is not used: it
would save a config.json of one class's arguments beside the weights, where a model folder names several parts, checks
whom they may name, and holds the sum of its weights.
"""

from ccl.publish.card import Said, card
from ccl.publish.model import Pushed, outline, ready
from ccl.publish.samples import Sample, inside, samples_of
from ccl.publish.scores import scores_of
from ccl.publish.upload import File, Hub

__all__ = ["File", "Hub", "Pushed", "Said", "Sample", "card", "inside", "outline", "ready", "samples_of", "scores_of"]
