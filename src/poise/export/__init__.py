"""Models as files for other runtimes: ONNX, OpenVINO, TorchScript, torch.export; pictures in, poses out."""
