"""Networks to start from: classifiers, segmentation, detection, autoencoders, generators, text, recommenders.

Every model is a plain `nn.Module` with PyTorch's conventions; where torchvision has the same network, parameters have its names.
The programs in `examples/` train them.

>>> import fastdl as fd
>>> model = fd.models.resnet18(num_classes=10, width=8)
>>> model(fd.zeros((1, 3, 64, 64))).shape
(1, 10)
"""

from .adversarial import fgsm, pgd
from .autoencoders import VAE, Autoencoder, ConvAutoencoder, StackedAutoencoder
from .boltzmann import DBN, RBM
from .boxes import box_iou, decode_boxes, encode_boxes, match_boxes, mean_average_precision, nms
from .contrastive import SimCLR, nt_xent_loss
from .detector import SSD
from .ensemble import Ensemble
from .gan import DCDiscriminator, DCGenerator
from .lenet import LeNet5
from .recommend import MatrixFactorization, NeuralRecommender
from .resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from .text import RecurrentLM, SkipGram, TextCNN, sampler
from .transformer import GPT, MaskedTransformer, mask_tokens
from .unet import UNet
from .vgg import VGG, AlexNet, alexnet, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "DBN", "GPT", "RBM", "SSD", "VAE", "VGG", "AlexNet", "Autoencoder", "ConvAutoencoder", "DCDiscriminator", "DCGenerator", "Ensemble",
    "LeNet5", "MaskedTransformer", "MatrixFactorization", "NeuralRecommender", "RecurrentLM", "ResNet", "SimCLR", "SkipGram",
    "StackedAutoencoder", "TextCNN", "UNet", "alexnet", "box_iou", "decode_boxes", "encode_boxes", "fgsm", "mask_tokens", "match_boxes",
    "mean_average_precision", "nms", "nt_xent_loss", "pgd", "resnet18", "resnet34", "resnet50", "resnet101", "sampler", "vgg11", "vgg13",
    "vgg16", "vgg19",
]  # fmt: skip
