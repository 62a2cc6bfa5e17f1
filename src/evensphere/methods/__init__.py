"""Self-supervised methods, one file each. A new one is a file and a line here.

Only names live here, so that listing them loads no torch.
"""

from __future__ import annotations

from typing import NamedTuple


class MethodInfo(NamedTuple):
    """What one line of `evensphere methods` says.

    home: where it is defined. needs: in words. cost: of a step, relative to SimCLR. streams: whether it does without
    the images' numbers, so that data of unknown length can be streamed.
    """

    home: str
    paper: str
    needs: str
    cost: float
    streams: bool = True


METHOD_INFO = {
    "simclr": MethodInfo("evensphere.methods.simclr:SimCLR", "Chen et al., ICML 2020", "two views", 1.0),
    "focal": MethodInfo("evensphere.methods.focal:Focal", "Zhou et al., NeurIPS 2023, baseline", "two views", 1.0),
    "sdclr": MethodInfo("evensphere.methods.sdclr:SDCLR", "Jiang et al., ICML 2021", "two views", 1.0),
    "bcl": MethodInfo(
        "evensphere.methods.bcl:BCL", "Zhou et al., ICML 2022", "two views, a loss per image", 1.0, False
    ),
    "moco": MethodInfo(
        "evensphere.methods.moco:MoCo", "Chen et al., 2020 (MoCo v2)", "two views, a twin, a queue", 1.8
    ),
    "byol": MethodInfo("evensphere.methods.byol:BYOL", "Grill et al., NeurIPS 2020", "two views, a twin", 1.9),
    "simsiam": MethodInfo("evensphere.methods.simsiam:SimSiam", "Chen & He, CVPR 2021", "two views", 2.1),
    "moco-v3": MethodInfo("evensphere.methods.moco_v3:MoCoV3", "Chen et al., ICCV 2021", "two views, a twin", 1.9),
    "nnclr": MethodInfo("evensphere.methods.nnclr:NNCLR", "Dwibedi et al., ICCV 2021", "two views, a queue", 2.9),
    "ts": MethodInfo("evensphere.methods.ts:TS", "Kukleva et al., ICLR 2023", "two views", 1.0),
    "barlow": MethodInfo("evensphere.methods.barlow:BarlowTwins", "Zbontar et al., ICML 2021", "two views", 1.1),
    "vicreg": MethodInfo("evensphere.methods.vicreg:VICReg", "Bardes et al., ICLR 2022", "two views", 1.1),
    "swav": MethodInfo(
        "evensphere.methods.swav:SwAV", "Caron et al., NeurIPS 2020", "two views or more; takes local views", 1.0
    ),
    "dino": MethodInfo(
        "evensphere.methods.dino:DINO", "Caron et al., ICCV 2021", "two views or more, a twin; takes local views", 1.7
    ),
    "pmsn": MethodInfo(
        "evensphere.methods.pmsn:PMSN", "Assran et al., ICLR 2023", "two views or more, a twin; takes local views", 1.6
    ),
}

METHODS = {name: info.home for name, info in METHOD_INFO.items()}

DISTILLATION = "evensphere.methods.distill:Distillation"  # of DnC's last stage; of no use anywhere else
