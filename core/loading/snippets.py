"""How to save logits from the libraries that people train with: six lines each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SNIPPETS", "Snippet"]


@dataclass(frozen=True, slots=True)
class Snippet:
    """Lines of Python that save a file this app reads.

    Parameters
    ----------
    label : str
        Name of the library.
    code : str
        Python source; it uses names that a training script has.
    needs : tuple of str
        Those names.
    """

    label: str
    code: str
    needs: tuple[str, ...]


SNIPPETS = {
    "pytorch": Snippet(
        "PyTorch",
        """\
import numpy as np, torch

model.eval()
with torch.inference_mode():
    pairs = [(model(x), y) for x, y in loader]
logits, labels = (torch.cat(part).cpu().numpy() for part in zip(*pairs))
np.savez("predictions.npz", logits=logits, labels=labels)
""",
        ("model", "loader"),
    ),
    "huggingface": Snippet(
        "Hugging Face",
        """\
import numpy as np

output = trainer.predict(dataset)  # a transformers.Trainer
z = output.predictions
z = z[0] if isinstance(z, tuple) else z
names = np.array(list(trainer.model.config.id2label.values()))
np.savez("predictions.npz", logits=z, labels=output.label_ids, classes=names)
""",
        ("trainer", "dataset"),
    ),
    "sklearn": Snippet(
        "scikit-learn",
        """\
import numpy as np

classes = model.classes_.astype(str)
p = model.predict_proba(X_test)  # rows that the model was not fitted on
y = np.asarray(y_test).astype(str)
np.savez("predictions.npz", probabilities=p, labels=y, classes=classes)
""",
        ("model", "X_test", "y_test"),
    ),
    "keras": Snippet(
        "Keras",
        """\
import keras, numpy as np

last = model.layers[-1]  # the Dense layer with the softmax
hidden = keras.Model(model.inputs, last.input).predict(x_test)
kernel, bias = last.get_weights()
logits = hidden @ kernel + bias
np.savez("predictions.npz", logits=logits, labels=y_test)
""",
        ("model", "x_test", "y_test"),
    ),
}
"""Library -> snippet, in the order they are shown."""
