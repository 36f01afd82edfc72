"""Names that other libraries have for configuration keys, and former names of keys."""

# Former names of keys, and the names that other libraries have for them, as NAME=KEY. The group
# stands before both.
_OTHER_NAMES = {
    "": """
        aa=augment.policy annotation_file=dataset.labels annotations=dataset.labels
        csv=dataset.labels csv_file=dataset.labels cv_fold=dataset.fold
        group_column=dataset.group_key image_column=dataset.image_key kfold=dataset.fold
        label_column=dataset.label_key labels_file=dataset.labels metadata=dataset.labels
        n_folds=dataset.fold n_splits=dataset.fold num_folds=dataset.fold sep=dataset.delimiter
        separator=dataset.delimiter split_column=dataset.split_key train_csv=dataset.labels
        weight_column=dataset.weight_key accum_iter=grad_accum_steps accum_steps=grad_accum_steps
        accumulate=grad_accum_steps accumulate_grad_batches=grad_accum_steps
        act=model.activation act_layer=model.activation amp=model.dtype
        amp_dtype=model.dtype arch=model.name architecture=model.name
        aug_repeats=augment.repeated_aug augment=augment.policy augmentation=augment.policy
        auto_augment=augment.policy autoaugment=augment.policy backbone=model.name
        base_lr=schedule.learning_rate batch=batch_size batch_norm=sync_batch_norm
        batch_size_per_gpu=batch_size bce_loss=loss betas=optimizer.b1 bf16=model.dtype
        bfloat16=model.dtype block_cls=model.block blr=schedule.learning_rate
        bs=batch_size cache=loader.cache_on_device
        cache_dir=compilation_cache check_val_every_n_epoch=eval.every_epochs checkpoint=init_from
        checkpoint_freq=checkpoint.every_epochs checkpoint_interval=checkpoint.every_epochs
        checkpoint_path=init_from ckpt=init_from ckpt_path=init_from classes=model.num_classes
        clip_grad=optimizer.grad_clip_norm clip_grad_norm=optimizer.grad_clip_norm
        clipnorm=optimizer.grad_clip_norm compute_dtype=model.dtype criterion=loss
        crop=dataset.image_size cutmix_alpha=augment.cutmix
        early_stopping=stop.patience es_patience=stop.patience patience=stop.patience
        early_stopping_patience=stop.patience min_delta=stop.min_delta max_time=stop.minutes
        class_weight=class_weights gamma=focal_gamma
        aux_weight=aux_loss_weight auxiliary_head=model.aux_head auxiliary_weight=aux_loss_weight
        ignore_index=dataset.ignore_values ignore_label=dataset.ignore_values
        poly_power=schedule.power ratio_range=augment.scale_range
        reduce_zero_label=dataset.mask_values
        data=dataset.data_dir data.max_bad_fraction=loader.max_corrupt_fraction
        data.resident=loader.cache_on_device data.resident_gib=loader.device_cache_gib
        data.steps_per_call=steps_per_execution data.threads=loader.threads
        data.workers=loader.workers data_path=dataset.data_dir dataset_name=dataset.name
        dataset_type=dataset.name debug=smoke decay_epochs=schedule.milestone_epochs
        decay_milestones=schedule.milestone_epochs decay_rate=schedule.gamma depth=model.name
        drop=model.dropout drop_path_rate=model.drop_path drop_rate=model.dropout
        dropout_rate=model.dropout dry_run=smoke ema=ema.decay epochs=num_epochs
        erase=augment.random_erasing eraser=augment.random_erasing
        eta_min=schedule.end_lr_fraction eval_every=eval.every_epochs eval_freq=eval.every_epochs
        eval_interval=eval.every_epochs eval_step=eval.every_epochs fast_dev_run=smoke
        finetune=init_from fp16=model.dtype freeze_backbone=freeze
        global_clipnorm=optimizer.grad_clip_norm grad_accumulation=grad_accum_steps
        grad_clip=optimizer.grad_clip_norm gradient_accumulation=grad_accum_steps
        gradient_accumulation_steps=grad_accum_steps gradient_clip_val=optimizer.grad_clip_norm
        half=model.dtype half_precision=model.dtype head_dropout=model.dropout
        hflip_prob=augment.hflip image_dir=dataset.data_dir image_shape=dataset.image_size
        bit_depth=dataset.bits in_chans=dataset.channels in_channels=dataset.channels
        input_channels=dataset.channels num_channels=dataset.channels
        img_size=dataset.image_size init_checkpoint=init_from initial_checkpoint=init_from
        initial_lr=schedule.learning_rate input_shape=dataset.image_size
        input_size=dataset.image_size iterations=num_steps j=loader.workers
        layer_decay=optimizer.backbone_lr_scale limit_train_batches=smoke load_from=init_from
        load_weights=init_from log_every=log.every_steps log_freq=log.every_steps
        log_interval=log.every_steps loss_threshold=bce_target_threshold lr=schedule.learning_rate
        lr_base=schedule.learning_rate lr_decay=schedule.gamma lr_gamma=schedule.gamma
        lr_milestones=schedule.milestone_epochs lr_min=schedule.end_lr_fraction
        lr_policy=schedule.name lr_schedule=schedule.name lr_scheduler=schedule.name
        lr_step_size=schedule.milestone_epochs manual_seed=seed max_epoch=num_epochs
        max_grad_norm=optimizer.grad_clip_norm max_iters=num_steps max_lr=schedule.learning_rate
        max_norm=optimizer.grad_clip_norm min_lr=schedule.end_lr_fraction
        mixed_precision=model.dtype mixup_alpha=augment.mixup
        mixup_switch=augment.mixup_switch_prob model=model.name model_ema=ema.decay
        model_ema_decay=ema.decay model_type=model.name n_classes=model.num_classes
        nb_classes=model.num_classes net=model.name network=model.name
        norm_layer=model.norm
        norm_weight_decay=optimizer.decay_norm_and_bias num_iterations=num_steps
        num_workers=loader.workers opt=optimizer.name opt_eps=optimizer.eps optim=optimizer.name
        optimizer=optimizer.name optimizer_type=optimizer.name overfit_batches=smoke
        param_dtype=model.dtype path=dataset.data_dir per_device_batch_size=batch_size
        per_device_train_batch_size=batch_size policy=augment.policy precision=model.dtype
        pretrained=init_from pretrained_weights=init_from print_freq=log.every_steps
        ra=augment.policy ra_magnitude=augment.rand_magnitude ra_reps=augment.repeated_aug
        ra_sampler=augment.repeated_aug rand_augment=augment.policy randaug=augment.policy
        randaugment=augment.policy random_erase=augment.random_erasing random_seed=seed
        ratio=augment.rrc_ratio re_prob=augment.random_erasing reprob=augment.random_erasing
        resize=dataset.crop_pct resize_size=dataset.crop_pct rng_seed=seed root=dataset.data_dir
        save_every=checkpoint.every_epochs save_freq=checkpoint.every_epochs
        save_interval=checkpoint.every_epochs save_top_k=checkpoint.max_to_keep
        save_total_limit=checkpoint.max_to_keep scale=augment.rrc_scale sched=schedule.name
        schedule=schedule.name scheduler=schedule.name skip_nan=on_nonfinite
        smoothing=label_smoothing split=dataset.train_split step_size=schedule.milestone_epochs
        steps=num_steps sync_batchnorm=sync_batch_norm sync_bn=sync_batch_norm
        ta_wide=augment.policy test_dir=dataset.eval_split test_split=dataset.eval_split
        torch_dtype=model.dtype train_batch_size=batch_size train_crop_size=dataset.train_sizes
        train_dir=dataset.train_split train_size=dataset.train_sizes
        trivial_augment=augment.policy trivialaugment=augment.policy use_ema=eval.use_ema
        val_batch_size=eval.batch_size val_check_interval=eval.every_epochs
        val_crop_size=dataset.image_size val_dir=dataset.eval_split val_every=eval.every_epochs
        val_freq=eval.every_epochs val_interval=eval.every_epochs val_resize_size=dataset.crop_pct
        val_split=dataset.eval_split validation_split=dataset.val_fraction
        warmup=schedule.warmup_epochs warmup_iters=schedule.warmup_steps wd=optimizer.weight_decay
        weights=init_from workers=loader.workers zero_gamma=model.zero_init_last
        zero_init=model.zero_init_last zero_init_residual=model.zero_init_last
    """,
    "augment.": """
        crop_aspect=rrc_ratio crop_scale=rrc_scale erasing=random_erasing
        erasing_area=random_erasing_scale erasing_aspect=random_erasing_ratio flip=hflip
        mix_probability=mixup_prob mix_switch=mixup_switch_prob rand_layers=rand_num_ops
        rand_probability=rand_prob repeats=repeated_aug vertical_flip=vflip
    """,
    "checkpoint.": "keep=max_to_keep",
    "dataset.": """
        crop_ratio=crop_pct held_out=val_fraction held_out_seed=val_seed
        size_epochs=train_size_epochs
    """,
    "eval.": "ema=use_ema",
    "optimizer.": """
        backbone_rate=backbone_lr_scale beta1=b1 beta2=b2 clip_norm=grad_clip_norm decay=name
        decay_norms=decay_norm_and_bias epsilon=eps
    """,
    "schedule.": """
        end_rate=end_lr_fraction one_cycle_rise=pct_start scale_batch=base_batch_size
        step_epochs=milestone_epochs step_factor=gamma step_shares=milestones
        step_steps=milestone_steps warmup_most=max_warmup_fraction
    """,
}
OTHER_NAMES = {
    group + name: group + key
    for group, names in _OTHER_NAMES.items()
    for name, key in (pair.split("=") for pair in names.split())
}

# Names of other libraries that no key stands for, and what serves in their place.
_ANSWERS = {
    "accelerator device devices gpu gpus n_gpu num_devices num_gpus platform tpu_cores": (
        "all devices are used; the environment variables JAX_PLATFORMS and CUDA_VISIBLE_DEVICES"
        " select them"
    ),
    "dist_url distributed local_rank nnodes node_rank nodes num_nodes rank strategy world_size": (
        "use the flags --coordinator, --num_processes and --process_id"
    ),
    "auto_resume last_epoch resume resume_from resume_from_checkpoint start_epoch": (
        "the same command with the same --workdir resumes"
    ),
    "checkpoint_dir default_root_dir exp_dir exp_name experiment log_dir logdir out out_dir output"
    " output_dir run_name save_dir work_dir workdir": "use the flag --workdir DIR",
    "logger tensorboard use_wandb wandb": (
        "config.log.to=tensorboard,mlflow,wandb selects loggers; metrics.jsonl and report.html in"
        " the workdir are always written"
    ),
    "crop_size": (
        "config.dataset.image_size is the size of the input; with task='segmentation'"
        " config.augment.crop_size is that of random crops"
    ),
    "ann_dir mask_dir masks_dir": "masks lie in config.dataset.data_dir, in masks beside images",
    "eval_only evaluate test_only": "python -m train.evaluate --workdir DIR evaluates a run",
}
ANSWERS = {name: answer for names, answer in _ANSWERS.items() for name in names.split()}
