"""Learning representations by mutual information: Deep InfoMax, and how its codes are judged."""

from captum_mi.infomax.decoder import Decoder, fit_decoder, multi_scale_ssim, reconstruction
from captum_mi.infomax.deep_infomax import DeepInfoMax
from captum_mi.infomax.dependency import distance_to_uniform, neural_dependency
from captum_mi.infomax.encoders import ConvEncoder
from captum_mi.infomax.objectives import Information, Mixture
from captum_mi.infomax.prior import PriorMatching
from captum_mi.infomax.probes import NetworkProbe, probe
from captum_mi.infomax.regularizer import InformationRegularizer, clipped, frozen_call
from captum_mi.infomax.report import Row, judge, table
from captum_mi.infomax.training import Training, train_supervised

__all__ = [
    "ConvEncoder",
    "Decoder",
    "DeepInfoMax",
    "Information",
    "InformationRegularizer",
    "Mixture",
    "NetworkProbe",
    "PriorMatching",
    "Row",
    "Training",
    "clipped",
    "distance_to_uniform",
    "fit_decoder",
    "frozen_call",
    "judge",
    "multi_scale_ssim",
    "neural_dependency",
    "probe",
    "reconstruction",
    "table",
    "train_supervised",
]
