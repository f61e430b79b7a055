"""What is asked of every stock model: that it trains a step and predicts."""

import torch


def train_a_step(model, inputs):
    """Losses and gradients of a fresh model are finite, and reach its first layer. Returns the preprocessed batch."""
    model.init_weights()
    batch = model.data_preprocessor(inputs, training=True)
    model.train()
    loss, terms = model.parse_losses(model(**batch, mode="loss"))
    assert torch.isfinite(loss), terms
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert next(model.backbone.parameters()).grad.abs().sum() > 0
    return batch


def predict(model, batch):
    """Its results for the batch."""
    model.eval()
    with torch.no_grad():
        return model(**batch, mode="predict")
