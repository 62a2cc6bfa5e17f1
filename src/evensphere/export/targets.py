"""What an encoder can be exported to: a line about each. Only names live here, so that listing them loads no torch."""

from __future__ import annotations

TARGETS: dict[str, str] = {
    "timm": "a state dict for timm's model without classifier (.safetensors or .pth)",
    "torchvision": "the same for torchvision's model, and for its detectors (.safetensors or .pth)",
    "safetensors": "the weights under our own names, whatever the network (.safetensors)",
    "onnx": "a graph with a batch of any size (.onnx)",
    "torch-export": "a program of torch.export with a batch of any size (.pt2)",
    "huggingface": "a folder: config, weights, preprocessing, model card",
    "detectron2": "a checkpoint for its ResNets (.pth)",
    "mmdet": "a checkpoint for the ResNets of mmdetection (.pth)",
}
