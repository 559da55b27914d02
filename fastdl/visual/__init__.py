"""Seeing what a network does: plots, explanations of predictions, TensorBoard logs.

Plots need matplotlib (`pip install 'fastdl-engine[plot]'`), logs tensorboardX (`[tensorboard]`); both are imported when first used.
"""

from .adapters import explain_with_lime, explain_with_shap, predict_function
from .explain import grad_cam, integrated_gradients, occlusion, saliency
from .history import History
from .plots import plot_confusion_matrix, plot_feature_maps, plot_filters, plot_heatmaps, plot_history, plot_images
from .tensorboard import SummaryWriter, read_events

__all__ = [
    "History", "SummaryWriter", "explain_with_lime", "explain_with_shap", "grad_cam", "integrated_gradients", "occlusion",
    "plot_confusion_matrix", "plot_feature_maps", "plot_filters", "plot_heatmaps", "plot_history", "plot_images", "predict_function",
    "read_events", "saliency",
]  # fmt: skip
