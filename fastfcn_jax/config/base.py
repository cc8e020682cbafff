"""Every setting of an experiment and its default; files in `configs/` override some of them."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base experiment, locked: assigning an unknown key raises an error.

    The defaults are mmsegmentation's FastFCN recipe for Cityscapes, batch 4x2
    (`configs/_base_` of mmsegmentation 1.2.2).
    """
    c = ConfigDict()
    c.seed = 0  # for initial weights, data order, augmentation and dropout

    m = c.model = ConfigDict()  # the network
    # mmseg | official | paddleseg: sets layer order, align_corners and initialisation
    m.lineage = "mmseg"
    # resnet18 | resnet34 | resnet50 | resnet101 | resnet152 | resnext50_32x4d | wide_resnet50_2
    m.backbone = "resnet50"
    m.stem = "deep"  # deep: three 3x3 convolutions | plain: one 7x7, as in torchvision
    m.average_downsample = False  # shortcuts average 2x2 where they down-sample (ResNet-D, vd)
    m.base_width = 64  # channels of layer1's 3x3 convolutions; the other stages are multiples
    m.output_stride = 32  # 32 with a JPU; 8 for the dilated twin (neck = "none") and in paddleseg
    m.neck = "jpu"  # jpu | jpu_x (official only) | none
    m.neck_channels = 512  # width of the JPU's branches; its output has 4 times as many channels
    m.head = "psp"  # psp | aspp | enc | fcn
    m.head_channels = 512  # channels of the head's last feature map
    # fraction of channels dropped before the classifiers; paddleseg: of single values, before the
    # auxiliary one only
    m.dropout = 0.1
    m.se_branch = False  # enc head only: predict which classes are present (SE loss)
    # enc head only: fuse c3 and c4 (paddleseg: c2 and c3) into its map (the official --lateral)
    m.lateral = False
    m.auxiliary = True  # FCN head on c4 during training
    m.auxiliary_channels = 256  # channels of the auxiliary head
    # 0: number of classes of the data set | 1: one channel for two classes, trained by binary cross
    # entropy (out_channels=1 and use_sigmoid of mmsegmentation)
    m.num_classes = 0
    m.threshold = 0.3  # one channel: probability above which a pixel is of the second class
    m.precision = "float32"  # float32 | bfloat16: compute type; parameters stay float32
    # auto: as `fastfcn bench --tune` measured on this device, else fast | fast: the shipped table |
    # fast without OPERATION, OPERATION | plain: XLA's standard operations, to work around compiler
    # errors
    m.forms = "auto"
    m.remat = False  # recompute activations per block: less memory, about 11 % more work

    d = c.data = ConfigDict()  # the data set, its augmentation, and how it is read
    # cityscapes | ade20k | pascal_context | camvid | pascal_voc | pascal_aug | coco (VOC's classes)
    # | coco_stuff164k | coco_stuff10k | mapillary | loveda | potsdam | vaihingen | dark_zurich |
    # nighttime_driving | folder | synthetic
    d.name = "cityscapes"
    d.root = ""  # folder of the data set, in its published layout
    d.channels = 3  # channels of an image, 1 (grey) to 16; 3 and uint8: any picture, read as RGB
    d.dtype = "uint8"  # uint8 | uint16 | float32: type of an image's values
    # (mean, deviation) of each channel, as `fastfcn doctor --folder` measures; (): ImageNet's
    d.scaling = ()
    d.train_split = "train"  # images to train on; docs/datasets.md lists the splits
    # train on these instead, mixed: ("NAME SPLIT REPEAT ROOT", ...), all with the same classes
    d.sets = ()
    # repeat images with classes that fewer than this fraction of the images show; 0: off
    d.balance_below = 0.0
    d.val_split = "val"  # images to evaluate on
    # mmseg | official | paddleseg: order and arithmetic of the training transforms
    d.augmentation = "mmseg"
    # the training transforms one by one instead: ("resize", "crop", "flip", "rotate degrees=20");
    # docs/augmentation.md has the steps and their options. (): the list that augmentation names
    d.augment = ()
    d.crop_size = (512, 1024)  # height, width of a training sample
    d.resize_scale = (2048, 1024)  # mmseg: width, height that images are scaled to fit at ratio 1
    # random factor: on resize_scale (mmseg), on the image's own size (paddleseg)
    d.ratio_range = (0.5, 2.0)
    d.ratio_step = 0.25  # paddleseg: step between the factors
    d.cat_max_ratio = 0.75  # mmseg: redraw a crop if one class covers more than this; 1.0: never
    d.photometric = True  # mmseg, paddleseg: random brightness, contrast, saturation and hue
    d.base_size = 520  # official: the short side is scaled to 0.5 to 2 times this, at random
    d.blur = True  # official: Gaussian blur with probability 1/2
    d.rotation = 0.0  # official: largest rotation in degrees; 10 for Cityscapes
    # official: label of the black padding; 0 (background) in the official code's VOC and COCO
    d.padding_label = 255
    d.flip = 0.5  # probability of a horizontal flip
    d.crop_first = False  # resize only the part inside the crop; images differ by rounding
    # mmseg: flip and photometric distortion by the device, in the training step, with the same
    # random numbers; images differ by rounding
    d.device_augmentation = False
    # width, height that test images are scaled to fit; (0, 0): no scaling
    d.test_scale = (2048, 1024)
    d.cache = ""  # folder for a cache of decoded images; empty: no cache
    d.threads = 8  # threads that read and augment images
    d.workers = 0  # worker processes, each with `threads` threads; 0: threads only, mostly faster
    d.prefetch = 4  # batches prepared ahead

    s = c.loss = ConfigDict()  # terms, their settings and their denominator
    # of the main head, each with ":weight" (1 if left out): cross_entropy | dice | class_dice |
    # lovasz | focal | tversky | boundary; docs/training.md defines them
    s.terms = ("cross_entropy",)
    s.label_smoothing = 0.0  # cross entropy: share of the aim that is spread over all classes
    s.focal_gamma = 2.0  # focal: exponent, how much less easy pixels count
    s.focal_alpha = 0.5  # focal: weight of "is this class", against 1 - focal_alpha for "is not"
    s.tversky_alpha = 0.3  # tversky: weight of false positives, 1 - this of false negatives
    s.boundary_width = 3  # boundary: pixels around a border between classes that it counts
    # all_pixels (mmseg) | valid_pixels (official, over the global batch) |
    # valid_pixels_per_shard (exactly as the official trainer: the mean of each GPU's mean) |
    # valid_pixels_per_micro_batch (as mmengine accumulates: the mean of each micro-batch's mean)
    s.normalization = "all_pixels"
    s.auxiliary_weight = 0.4  # weight of the auxiliary head's cross entropy
    s.se_weight = 0.2  # weight of the SE loss, if model.se_branch is on
    s.class_weights = ()  # one factor per class, or ("auto",): from label frequencies; (): none
    s.ohem_threshold = 0.0  # hard example mining: keep pixels of lower confidence; 0: off
    s.ohem_min_kept = 100_000  # hard example mining: keep at least this many pixels per image

    o = c.optim = ConfigDict()  # optimiser, and the schedule of its learning rate
    o.name = "sgd"  # sgd | adamw | lamb
    o.lr = 0.01  # learning rate at the start of the schedule; one_cycle: at its peak
    o.momentum = 0.9  # sgd: as in PyTorch, v = momentum * v + gradient
    o.nesterov = False  # sgd: Nesterov's momentum
    o.betas = (0.9, 0.999)  # adamw, lamb: decay of the mean gradient and of its square
    o.eps = 1e-8  # adamw, lamb: added to the root of the mean square
    # added to the gradient (sgd) or to the direction (adamw, lamb)
    o.weight_decay = 5e-4
    o.decay_norms = True  # also decay BatchNorm's parameters and biases, as in both references
    # factors of single parameters, by the first pattern that matches their name:
    # ("backbone/*/bn* lr=0.1 decay=0",)
    o.groups = ()
    # poly | cos (half a cosine) | step (drops) | one_cycle (up and down): the learning rate by step
    o.schedule = "poly"
    o.power = 0.9  # exponent of the poly schedule
    o.end_lr = 1e-4  # learning rate at the end of the schedule
    # poly, cos: the last step uses end_lr (mmseg 1.x); False: the step after the last would
    o.poly_reaches_end = True
    o.step_every = 0  # step schedule: steps between two drops of the learning rate
    o.step_factor = 0.1  # step schedule: factor of each drop
    o.cycle_start = 0.04  # one_cycle: the first learning rate, as a fraction of lr
    o.cycle_peak = 0.3  # one_cycle: fraction of the steps after which the learning rate is lr
    o.head_lr_multiplier = 1.0  # learning-rate factor of neck and heads; 10 in the official lineage
    o.warmup_steps = 0  # warm-up: step i runs at (i + 1) / warmup_steps of the schedule; 0: off
    o.clip_norm = 0.0  # largest global gradient norm; 0: no clipping
    o.layer_decay = 1.0  # learning-rate factor per backbone stage, from layer4 to the stem; 1: off
    o.freeze = ()  # "backbone", "bn": parameters (and statistics) that are not trained

    t = c.train = ConfigDict()  # length of the run, batches, checkpoints
    t.steps = 80_000  # number of weight updates
    t.batch_size = 8  # images per batch, over all devices and hosts
    t.accumulate = 1  # batches whose gradients are combined into one update
    t.ema_decay = 0.0  # decay of a moving average of the weights, evaluated and saved; 0: off
    # the average begins short: step n, counted from 0, decays at most by (1 + n) / (10 + n)
    t.ema_warmup = False
    t.log_every = 50  # steps between records in metrics.jsonl
    t.eval_every = 8_000  # steps between evaluations on the validation split; 0: none
    t.save_every = 2_000  # steps between checkpoints; the latest two and the best are kept
    # folder on a disk of this host for copies of the checkpoints, restored first; empty: none
    t.local_checkpoints = ""
    t.local_save_every = 0  # steps between copies on that disk alone; 0: only beside shared ones
    t.keep_every = 0  # also keep checkpoints at multiples of this; 0: none
    t.early_stop = 0  # stop after this many evaluations without a better mIoU; 0: off
    t.on_nonfinite = "stop"  # stop | skip the step: at a NaN or infinite loss or gradient
    t.deterministic = False  # deterministic GPU kernels, at some cost in speed
    t.strategy = "auto"  # auto | pmap | jit: auto is pmap in one process, jit across several
    t.pictures = 4  # validation images whose predictions are drawn at each evaluation
    t.wandb = False  # also log to Weights & Biases, if it is installed
    t.mlflow = False  # also log to the MLflow server of MLFLOW_TRACKING_URI; extra: mlflow

    e = c.eval = ConfigDict()  # how scores are computed, during training and by eval.py
    # single | flip | ms_flip | ms_flip_0x | slide | official | official_ms | paddleseg_ms
    e.protocol = "single"
    e.batch_size = 1  # images per forward pass
    e.max_images = 0  # during training, evaluate at most this many images; 0: all
    e.ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # ms_flip*, *_ms: scales of the image
    e.crop_size = (512, 1024)  # slide: height, width of a window
    e.stride = (341, 683)  # slide: vertical, horizontal step between windows

    i = c.init = ConfigDict()  # what a new run starts from
    i.checkpoint = ""  # checkpoint folder, or name of published weights, that training starts from
    i.backbone = ""  # ImageNet weights: a name, a file (.pth, .pdparams, …), https://… or hf://…
    i.reset_head = False  # reinitialise the classifiers, for another set of classes

    p = c.published = ConfigDict()  # published scores to compare with
    p.miou = 0.0  # single-scale mIoU in percent; 0: not published
    p.miou_flip = 0.0  # single-scale mIoU in percent with flip; 0: not published
    p.miou_ms_flip = 0.0  # mIoU in percent with multi-scale and flip; 0: not published
    p.source = ""  # where the scores are published
    return c.lock()
