"""ONNX: models outside Python. Importing this package needs ``querypose[onnx]``."""

from querypose.export.extra import require_packages

require_packages("querypose.export")

from querypose.export.detector import OnnxDetector, config_of_onnx  # noqa: E402
from querypose.export.onnx_export import ExportReport, export_onnx  # noqa: E402

__all__ = ["ExportReport", "OnnxDetector", "config_of_onnx", "export_onnx"]
